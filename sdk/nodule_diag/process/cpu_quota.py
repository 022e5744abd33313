"""How much CPU time a container may use: Linux's control groups, of version 1, of version 2, or both at once.

``docker --cpus 2`` and a Kubernetes limit take no core away, which a CPU set does; they stop every thread of the
container for the rest of each period once its time is used up. Threads for all cores of the host would then only stop
each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CGROUP = "proc/self/cgroup"
MOUNTS = "proc/self/mountinfo"
VERSION_2 = "cgroup2"
VERSION_1 = "cgroup"


class _Mount(NamedTuple):
    """A hierarchy of groups: which of its groups is mounted, and where."""

    kind: str
    group: PurePosixPath
    folder: PurePosixPath


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time that this process may use, as a number of CPUs.

    A group's limit binds all groups inside it, so the smallest one from the process's group up to the outermost that
    can be seen counts. Limits that cannot be read are none: not every system has control groups.

    Args:
        root: Of the file system that holds ``proc`` and ``sys``.

    Returns:
        Such as 1.5 for 150 ms in every 100; None without a limit.
    """
    try:
        groups = _groups((root / CGROUP).read_text())
        mounts = list(_mounts((root / MOUNTS).read_text()))
    except (OSError, ValueError):
        return None
    limits = [
        limit
        for mount in mounts
        if mount.kind in groups
        for folder in _folders(mount, groups[mount.kind])
        if (limit := _limit(root / folder.relative_to("/"), mount.kind)) is not None
    ]
    return min(limits, default=None)


def _groups(text: str) -> dict[str, PurePosixPath]:
    """The process's group by the kind of hierarchy; lines are ``number:controllers:group``."""
    found = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found[VERSION_2] = PurePosixPath(group)
        elif "cpu" in controllers.split(","):
            found[VERSION_1] = PurePosixPath(group)
    return found


def _mounts(text: str) -> Iterator[_Mount]:
    """Hierarchies that limit CPU time; proc_pid_mountinfo(5) has the fields."""
    for line in text.splitlines():
        place, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind == VERSION_2 or (kind == VERSION_1 and "cpu" in options.split(",")):
            group, folder = (PurePosixPath(_unescaped(field)) for field in place.split(" ")[3:5])
            yield _Mount(kind, group, folder)


def _unescaped(field: str) -> str:
    """Spaces and backslashes stand there in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _folders(mount: _Mount, group: PurePosixPath) -> Iterator[PurePosixPath]:
    """The group's folder and those round it, up to the mounted one.

    A container that shares its host's names of groups sees its own group mounted, and nothing round it.
    """
    try:
        inside = group.relative_to(mount.group)
    except ValueError:
        inside = PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()  # the group lies outside of what is mounted
    for part in (inside, *inside.parents):
        yield mount.folder / part


def _limit(folder: Path, kind: str) -> float | None:
    try:
        if kind == VERSION_2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        time, of = int(quota), int(period)
    except (OSError, ValueError):
        return None  # "max" is no number either
    return time / of if time > 0 and of > 0 else None
