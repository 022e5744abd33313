"""Carries out a Dockerfile's steps where no Docker daemon is: each RUN in a root file system of its own stage.

debootstrap --variant=minbase --include=python3,python3-dev,python3-pip,python-is-python3,ca-certificates bookworm BASE
python tests/packaging/dockerfile_steps.py deploy/Dockerfile --base BASE --scratch FOLDER --then "nodule-diag doctor"

Needs root and Linux. BASE stands for the image of every `FROM`, and is not changed. `--then` runs in the finished image
as its USER, with a read-only root and an empty /tmp, as its container would. Not covered: the base image itself, and
what Docker does with networks, health and signals.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_THE_HOST = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs")
"""How this machine reaches its package index; seen by the steps, and not part of the result."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNT = re.compile(r"--mount=(\S+)\s+")
BOX = """
set -e
mount --make-rprivate /
root=$1; command=$2; user=$3; shift 3
mount -t proc none "$root/proc"
mount --rbind /dev "$root/dev"
while [ $# -gt 0 ]; do
  if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; touch "$root$2"; fi
  mount --bind "$1" "$root$2"; shift 2
done
if [ -n "$user" ]; then
  mount --rbind "$root" "$root"; mount -o remount,bind,ro "$root"
  mount -t tmpfs none "$root/tmp"
  exec setpriv --no-new-privs chroot --userspec="$user:$user" --groups= "$root" sh -ec "$command"
fi
exec chroot "$root" sh -ec "$command"
"""


@dataclass
class Stage:
    """One ``FROM`` and what has been done in it."""

    root: Path
    environment: dict[str, str]
    user: str = ""
    said: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of every instruction, lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (name.upper(), rest) for name, _, rest in (line.strip().partition(" ") for line in joined.splitlines()) if name
    ]


def context() -> list[str]:
    """What .dockerignore lets in: it leaves out everything, and names what comes back."""
    everything, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}
    ]
    assert everything == "*", everything
    return [line[1:] for line in rest if line.startswith("!")]


def copy_context(target: Path) -> None:
    """``COPY . target``."""
    target.mkdir(parents=True, exist_ok=True)
    for name in context():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def run(stage: Stage, command: str, mounts: list[tuple[Path, str]], *, as_user: bool = False) -> None:
    """One command in a stage's root, in a mount namespace of its own."""
    bound = [(Path(name), name) for name in OF_THE_HOST if Path(name).exists()] + mounts
    words = [str(word) for pair in bound for word in pair]
    of_pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment = {"PATH": PATH, **of_pip, "PIP_BREAK_SYSTEM_PACKAGES": "1", **stage.environment}
    print(f"RUN {command[:150]}", file=sys.stderr, flush=True)
    box = ["unshare", "--mount", "bash", "-c", BOX, "box", str(stage.root), command, stage.user if as_user else ""]
    subprocess.run([*box, *words], check=True, env=environment)


def carry_out(dockerfile: Path, *, base: Path, scratch: Path, arguments: dict[str, str]) -> Stage:
    """Every instruction in order; the last stage is the image."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions(dockerfile.read_text()):
        if name == "FROM":
            alias = rest.split(" AS ")[1] if " AS " in rest else f"stage{len(stages)}"
            root = scratch / alias
            subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
            stage = stages[alias] = Stage(root, {})
        elif stage is None or name in {"EXPOSE"}:
            continue
        elif name == "ARG":
            key, _, default = rest.partition("=")
            stage.environment[key] = arguments.get(key, default)
        elif name == "ENV":
            stage.environment |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif name == "USER":
            stage.user = rest
        elif name == "COPY":
            source, target = rest.split()
            assert source == ".", rest
            copy_context(stage.root / target.lstrip("/"))
        elif name == "RUN":
            mounts = []
            for given in MOUNT.findall(rest):
                said = dict(part.split("=", 1) for part in given.split(","))
                mounts.append((stages[said["from"]].root / said["source"].lstrip("/"), said["target"]))
            run(stage, MOUNT.sub("", rest), mounts)
        elif name in {"HEALTHCHECK", "ENTRYPOINT"}:
            stage.said[name] = rest
        else:
            raise SystemExit(f"{dockerfile}: {name} is not known here")
    assert stage is not None, "no FROM"
    return stage


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--then", action="append", default=[])
    options = parser.parse_args()
    arguments = dict(argument.split("=", 1) for argument in options.build_arg)
    options.scratch.mkdir(parents=True)
    image = carry_out(
        options.dockerfile, base=options.base.resolve(), scratch=options.scratch.resolve(), arguments=arguments
    )
    for command in options.then:
        run(image, command, [], as_user=True)


if __name__ == "__main__":
    main()
