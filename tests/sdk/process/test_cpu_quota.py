"""A container's share of CPU time, on made-up trees of control groups as Docker, Kubernetes and systemd make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodule_diag.process.cpu_quota import cpu_quota
from nodule_diag.process.threads import resolve_threads

V2 = "31 23 0:28 {group} {folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {group} {folder} rw,relatime master:12 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = [
    "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
]


def tree(
    root: Path, *, groups: list[str], mounts: list[tuple[str, str, str]], files: dict[str, str] | None = None
) -> Path:
    """A file system with ``proc`` and control groups: lines of the two files, and the files of limits."""
    lines = [*OTHERS, *(kind.format(group=group, folder=folder) for kind, group, folder in mounts)]
    written = {"proc/self/cgroup": "\n".join(groups) + "\n", "proc/self/mountinfo": "\n".join(lines) + "\n"}
    for name, text in {**written, **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, *, group: str = "/", mounted: str = "/", **limits: str) -> Path:
    """Version 2 at its usual place; ``limits`` are ``cpu.max`` by folder, ``top`` and then ``a__b`` for ``a/b``."""
    files = {
        "/".join(["sys/fs/cgroup", *([] if name == "top" else name.split("__")), "cpu.max"]): text + "\n"
        for name, text in limits.items()
    }
    return tree(root, groups=[f"0::{group}"], mounts=[(V2, mounted, "/sys/fs/cgroup")], files=files)


def v1(root: Path, *, group: str, mounted: str, inside: str = "", quota: str = "250000") -> Path:
    folder = f"sys/fs/cgroup/cpu,cpuacct{inside}"
    files = {f"{folder}/cpu.cfs_quota_us": quota + "\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    groups = ["9:cpuset:/elsewhere", f"4:cpu,cpuacct:{group}", "1:name=systemd:/"]
    return tree(root, groups=groups, mounts=[(V1, mounted, "/sys/fs/cgroup/cpu,cpuacct")], files=files)


def test_a_container_that_sees_itself_as_the_outermost_group(tmp_path: Path) -> None:
    assert cpu_quota(v2(tmp_path, top="150000 100000")) == 1.5


def test_the_smallest_limit_round_the_process_counts(tmp_path: Path) -> None:
    group = "/pods.slice/pod.slice/me.scope"
    outer = v2(
        tmp_path / "outer",
        group=group,
        **{"pods.slice__pod.slice": "200000 100000", "pods.slice__pod.slice__me.scope": "800000 100000"},
    )
    assert cpu_quota(outer) == 2.0
    inner = {"pods.slice": "600000 100000", "pods.slice__pod.slice__me.scope": "40000 20000"}
    beside = {"pods.slice__other.slice": "1000 100000"}
    assert cpu_quota(v2(tmp_path / "inner", group=group, **inner, **beside)) == 2.0


def test_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(v2(tmp_path / "max", top="max 100000")) is None
    assert cpu_quota(v2(tmp_path / "no controller")) is None
    assert cpu_quota(v1(tmp_path / "v1", group="/", mounted="/", quota="-1")) is None
    assert cpu_quota(tree(tmp_path / "none", groups=[], mounts=[])) is None
    (tmp_path / "other system").mkdir()
    assert cpu_quota(tmp_path / "other system") is None


@pytest.mark.parametrize("text", ["", "many 100000", "100000", "1 2 3", "100000 0", "0 100000", "-5 -5"])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, text: str) -> None:
    assert cpu_quota(v2(tmp_path, top=text)) is None


def test_an_unreadable_process_file_is_no_limit(tmp_path: Path) -> None:
    root = v2(tmp_path, top="150000 100000")
    (root / "proc/self/cgroup").write_text("nonsense\n")
    assert cpu_quota(root) is None


@pytest.mark.parametrize(
    ("group", "mounted", "inside"),
    [
        ("/docker/4f2a", "/docker/4f2a", ""),  # the host's names, its own group mounted: Docker
        ("/docker/4f2a", "/", "/docker/4f2a"),  # on the host itself
        ("/docker/4f2a", "/", "/docker"),  # limited from outside
        ("/", "/docker/4f2a", ""),  # its own names, the host's mount
        ("/../other", "/", ""),  # moved out of what it can see
    ],
)
def test_version_1(tmp_path: Path, group: str, mounted: str, inside: str) -> None:
    assert cpu_quota(v1(tmp_path, group=group, mounted=mounted, inside=inside)) == 2.5


def test_what_lies_outside_of_the_hierarchy_is_no_limit(tmp_path: Path) -> None:
    root = v1(tmp_path, group="/../other", mounted="/")
    for folder in ("other", "cpuset", "."):
        place = root / "sys/fs/cgroup" / folder
        place.mkdir(exist_ok=True)
        (place / "cpu.cfs_quota_us").write_text("100000")
        (place / "cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(root) == 2.5


def test_both_versions_at_once(tmp_path: Path) -> None:
    """systemd's hybrid: the controller may be in either, and the other says nothing."""
    mounts = [(V1, "/", "/sys/fs/cgroup/cpu"), (V2, "/", "/sys/fs/cgroup/unified")]
    files = {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"}
    groups = ["3:cpu:/a", "0::/b"]
    assert cpu_quota(tree(tmp_path, groups=groups, mounts=mounts, files=files)) == 3.0
    assert cpu_quota(tree(tmp_path, groups=["0::/a"], mounts=mounts)) is None


def test_a_mount_with_a_space_in_its_name(tmp_path: Path) -> None:
    files = {"sys/control groups/cpu.max": "400000 100000"}
    root = tree(tmp_path, groups=["0::/"], mounts=[(V2, "/", "/sys/control\\040groups")], files=files)
    assert cpu_quota(root) == 4.0


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (0.2, 1), (1.0, 1), (1.5, 2), (2.0, 2), (64.0, 8)])
def test_threads_fit_into_the_share(monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("nodule_diag.process.threads.cpu_quota", lambda: quota)
    assert resolve_threads() == threads
    assert resolve_threads(5) == 5  # what is asked for is taken
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert resolve_threads() == 6
