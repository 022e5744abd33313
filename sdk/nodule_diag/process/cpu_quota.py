"""How much CPU time a container may use: Linux's control groups, of version 1, of version 2, or both at once.

``docker --cpus 2`` and a Kubernetes limit do not remove cores, as a CPU set does. They stop every thread of the
container for the rest of each period once its time is used up. Threads for all cores of the host would
use up the time early and then stand still.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

VERSION_1, VERSION_2 = "cgroup", "cgroup2"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time that this process may use, as a number of CPUs.

    A group's limit also applies to all groups inside it. So the smallest limit counts, from the process's group up to
    the outermost visible group. Limits that cannot be read are ignored: not every system has control groups.

    Args:
        root: Root of the file system that holds ``proc`` and ``sys``.

    Returns:
        For example 1.5 for 150 ms in every 100 ms; None without a limit.
    """
    try:
        groups = _groups((root / "proc/self/cgroup").read_text())
        folders = list(_folders((root / "proc/self/mountinfo").read_text(), groups))
    except (OSError, ValueError):
        return None
    limits = (_limit(root / folder.relative_to("/"), version) for version, folder in folders)
    return min((limit for limit in limits if limit is not None), default=None)


def _groups(text: str) -> dict[str, PurePosixPath]:
    """The process's group by version; lines are ``number:controllers:group``."""
    found = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found[VERSION_2] = PurePosixPath(group)
        elif "cpu" in controllers.split(","):
            found[VERSION_1] = PurePosixPath(group)
    return found


def _folders(text: str, groups: dict[str, PurePosixPath]) -> Iterator[tuple[str, PurePosixPath]]:
    """The version and the folder of the process's groups and of their parents, up to the mounted groups.

    Lines are those of proc_pid_mountinfo(5). A container that shares its host's names of groups sees its own group
    mounted, and no parents.
    """
    for line in text.splitlines():
        place, _, source = line.partition(" - ")
        version, _, options = source.split(" ", 2)
        if version not in groups or (version == VERSION_1 and "cpu" not in options.split(",")):
            continue
        mounted, folder = (PurePosixPath(_unescaped(field)) for field in place.split(" ")[3:5])
        group = groups[version]
        inside = group.relative_to(mounted) if group.is_relative_to(mounted) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()  # the group lies outside the mounted one
        for part in (inside, *inside.parents):
            yield version, folder / part


def _unescaped(field: str) -> str:
    """Decode spaces and backslashes, which are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _limit(folder: Path, version: str) -> float | None:
    try:
        if version == VERSION_2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        time, of = int(quota), int(period)
    except (OSError, ValueError):
        return None  # "max" is not a number either
    return time / of if time > 0 and of > 0 else None
