"""Manifests of small phantoms, some of them broken, and a worker that one of them kills."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from nodule_diag.ct.phantom import chest_phantom
from nodule_diag_cli.demo import write_ct

HEAD = "path,x,y,z,id,arm"
KILLER = "killer"
BROKEN = {
    "truncated.nii": "ct-truncated",
    "text.nii": "ct-damaged",
    "absent.nii": "ct-missing-path",
    "unknown.xyz": "ct-unsupported-format",
    "outside.nii": "coordinate-outside",
}
"""Files that are no good, or whose nodule is not in them, and what is said of each."""


def phantom_manifest(folder: Path, count: int = 60, *, broken: bool = True) -> Path:
    """A manifest of ``count`` coarse phantoms, no two alike, with two nodules in every third.

    With ``broken`` five of them are, and one, ``killer.nii``, ends its worker when that is :func:`killing`.
    """
    names = [f"ct{number:02}.nii" for number in range(count)]
    if broken:
        for place, name in zip(range(3, count, count // 6), (*BROKEN, f"{KILLER}.nii"), strict=False):
            names[place] = name
    lines = [HEAD]
    for number, name in enumerate(names):
        phantom = chest_phantom(spacing_zyx_mm=(5.0, 4.5, 4.5 + number / 200.0))
        path = write_ct(folder / "whole.nii", phantom.ct).rename(folder / name)
        points = [nodule.center_xyz_mm for nodule in phantom.nodules[: 2 if number % 3 == 0 else 1]]
        if name == "truncated.nii":
            path.write_bytes(path.read_bytes()[:-1000])
        elif name == "text.nii":
            path.write_text("no CT\n" * 100)
        elif name == "absent.nii":
            path.unlink()
        elif name == "outside.nii":
            points = [(9000.0, 0.0, 0.0)]
        for at, point in enumerate(points):
            lines.append(f"{name},{','.join(map(str, point))},n{number:02}-{at},{'ab'[number % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def _before(doing: Callable[[str], None]) -> Callable[[bytes], bytes]:
    """The worker's own work, which does something else with each CT first, when it is asked for or read ahead."""
    from nodule_diag.fleet.judging import start

    answer = start()

    def answered(request: bytes) -> bytes:
        asked = json.loads(request)
        for ct in (asked.get("ct"), asked.get("ahead")):
            if ct is not None:
                doing(ct["told"])
        return answer(request)

    return answered


def killing() -> Callable[[bytes], bytes]:
    """Ends the worker with the CT ``killer.nii``, and notes each time where ``KILLS_LOG`` says."""

    def kill(name: str) -> None:
        if KILLER in name:
            with Path(os.environ.get("KILLS_LOG", os.devnull)).open("a") as log:
                log.write("killed\n")
            os.kill(os.getpid(), signal.SIGKILL)

    return _before(kill)


def greedy() -> Callable[[bytes], bytes]:
    """Takes 4 GiB for the first CT."""

    def take(name: str) -> None:
        if name == "ct00.nii":
            bytearray(4 * 2**30)

    return _before(take)


def looping() -> Callable[[bytes], bytes]:
    """Computes for ever about the first CT."""

    def loop(name: str) -> None:
        while name == "ct00.nii":
            pass

    return _before(loop)


def ending_its_parent() -> Callable[[bytes], bytes]:
    """Ends the process that asks about the second CT, as the loss of a machine does; notes each time."""

    def end(name: str) -> None:
        if name == "ct01.nii":
            with Path(os.environ["ACTORS_LOG"]).open("a") as log:
                log.write(f"{name}\n")
            os.kill(os.getppid(), signal.SIGKILL)

    return _before(end)
