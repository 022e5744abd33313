"""The parent: runs the parts of the day in separate processes, each with its budget. Needs nothing but Python.

A part that dies, hangs or lacks a package affects only itself. The results so far are written every few seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_day.files import replace_file

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("", "sdk", "cli", "training", "export")
REPORT: Final = "day.json"
GRACE_S: Final = 15.0
"""Time after a run's end in which it writes its last weights."""
REFRESH_S: Final = 3.0
RESTART_S: Final = 45.0
"""With less time left, a run that died is not started again."""
TOLD_CHARACTERS: Final = 2000
"""Of each part's own output, the last characters are kept."""
CHECK_STEPS: Final = {
    "cuda": ("machine", "reference", "ceiling", "torch", "torch-compile-graphs", "torch-compile"),
    "cpu": ("machine", "reference", "ceiling"),
}


@dataclass(frozen=True, kw_only=True)
class Day:
    """The request for a day.

    Attributes:
        carried: The folder that ``pack`` made.
        out: Folder for the files that come back.
        work: Folder for everything else.
        device: ``cuda`` or ``cpu``.
        parts: ``speed``, ``train``, ``check``, in this order.
        prepare_s: Budget of unpacking, which all other parts but ``check`` need.
        speed_s: Budget of ``speed``.
        train_s: Budget of ``train``, all runs side by side.
        check_s: Budget of ``check``.
        mode: How steps are taken.
        convolutions: ``direct`` or ``split``.
        modes: The modes that ``speed`` tries.
        runs: Names of the runs; all runs if empty.
        sizes: Patch sizes of the stages, if not the recipe's.
        most_steps: Most steps of each stage, if not as many as the time allows.
    """

    carried: Path
    out: Path
    work: Path
    device: str = "cuda"
    parts: tuple[str, ...] = ("train", "check")
    prepare_s: float = 90.0
    speed_s: float = 60.0
    train_s: float = 400.0
    check_s: float = 75.0
    mode: str = "graph"
    convolutions: str = "split"
    modes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    most_steps: int | None = None


class Runner:
    """Runs a day.

    Args:
        day: The request.
    """

    def __init__(self, day: Day) -> None:
        self._day = day
        self._begin = time.time()
        day.out.mkdir(parents=True, exist_ok=True)
        day.work.mkdir(parents=True, exist_ok=True)
        self._environment = _environment(day)
        self.document: dict[str, Any] = {"parts": {}, "runs": {}, "device": day.device}
        self._write()

    def run(self) -> dict[str, Any]:
        """Run all parts.

        Returns:
            The document, which is also in the folder of the files that come back.
        """
        day = self._day
        folders = ["--carried", str(day.carried), "--prepared", str(day.work / "prepared")]
        sizes = ["--sizes", *map(str, day.sizes)] if day.sizes else []
        prepared = self._alone("prepare", ["benchmarks.gpu_day.prepared", *folders[1::2]], limit_s=day.prepare_s)
        if prepared:
            for part in day.parts:
                if part == "speed":
                    modes = ["--modes", *day.modes] if day.modes else []
                    command = ["benchmarks.gpu_day.speed", *folders, "--out", str(day.work / "speed.json")]
                    self._alone(part, [*command, "--device", day.device, *modes, *sizes], limit_s=day.speed_s)
                elif part == "train":
                    most = [] if day.most_steps is None else ["--most-steps", str(day.most_steps)]
                    ways = ["--device", day.device, "--convolutions", day.convolutions]
                    self._train([*folders, *ways, *sizes, *most])
        if "check" in day.parts:
            self._check()
        self._write()
        return self.document

    def _check(self) -> None:
        day = self._day
        command = ["benchmarks.gpu_check", "--out", str(day.work / "check.json"), "--deadline", f"{day.check_s - 5:g}"]
        command += ["--steps", *CHECK_STEPS[day.device], "--device", day.device]
        if day.device == "cpu":
            command += ["--budget", "0.05", "--batches", "1"]
        self._alone("check", command, limit_s=day.check_s)

    def _alone(self, name: str, command: Sequence[str], *, limit_s: float) -> bool:
        """Run one process until it ends or its time is up; returns whether it ended well."""
        begin = time.time()
        process = self._started(name, command)
        while process.poll() is None and time.time() - begin < limit_s:
            self._wait(process)
        late = process.poll() is None
        _kill(process)
        state = "timed-out" if late else "done" if process.returncode == 0 else f"exit code {process.returncode}"
        self.document["parts"][name] = {"state": state, "wall_s": round(time.time() - begin, 1), "log": self._end(name)}
        self._write()
        print(f"{name}: {state} after {time.time() - begin:.0f} s\n{self._end(name)}", flush=True)
        return state == "done"

    def _train(self, options: Sequence[str]) -> None:
        """Run all runs side by side; a run that dies without weights starts again in the safest mode."""
        day = self._day
        until = time.time() + day.train_s - GRACE_S
        names = day.runs or tuple(
            part["name"] for part in json.loads((day.carried / "index.json").read_text())["parts"]
        )
        modes = dict.fromkeys(names, day.mode)
        begin = time.time()

        def start(name: str) -> subprocess.Popen[bytes]:
            files = ["--weights", str(day.out / f"{name}.safetensors"), "--log", str(day.work / f"{name}.json")]
            chosen = ["--part", name, "--mode", modes[name], "--until", f"{until:.3f}"]
            return self._started(name, ["benchmarks.gpu_day.part", *chosen, *files, *options])

        running = {name: start(name) for name in names}
        while running and time.time() < until + GRACE_S:
            self._wait(next(iter(running.values())))
            for name, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                state = "done" if code == 0 else f"exit code {code}"
                print(f"{name}: {state} after {time.time() - begin:.0f} s in mode {modes[name]}\n{self._end(name)}")
                self.document["parts"][name] = {"state": state, "mode": modes[name], "log": self._end(name)}
                empty = not (day.out / f"{name}.safetensors").is_file()  # what it had is worth more than a shorter run
                if code != 0 and empty and modes[name] != "eager" and until - time.time() > RESTART_S:
                    self.document["parts"][f"{name}-{modes[name]}"] = self.document["parts"][name]
                    modes[name] = "eager"
                    running[name] = start(name)
        for name, process in running.items():
            _kill(process)
            self.document["parts"][name] = {"state": "timed-out", "mode": modes[name], "log": self._end(name)}
            print(f"{name}: timed-out\n{self._end(name)}", flush=True)
        self._write()

    def _started(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._day.work / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                # Parts work side by side in processes; gpu_check's CPU reference works in threads.
                env=self._environment if name == "check" else {**self._environment, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=REFRESH_S)
        self._write()

    def _end(self, name: str) -> str:
        log = self._day.work / f"{name}.log"
        return log.read_bytes()[-TOLD_CHARACTERS:].decode(errors="replace") if log.is_file() else ""

    def _write(self) -> None:
        """Write the document with the results of the parts so far."""
        for path in sorted(self._day.work.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                self.document["runs"][path.stem] = json.loads(path.read_text())
        self.document["wall_s"] = round(time.time() - self._begin, 1)
        replace_file(self._day.out / REPORT, json.dumps(self.document).encode())


def _environment(day: Day) -> dict[str, str]:
    """The places where a bare machine's Python finds the checkout, and the carried packages that it lacks."""
    site = day.work / "site"
    for wheel in sorted((day.carried / "wheels").glob("*.whl")):
        if not _importable(wheel.name.partition("-")[0]):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    paths = [*(str(ROOT / name) for name in PACKAGES), os.environ.get("PYTHONPATH", ""), str(site)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
