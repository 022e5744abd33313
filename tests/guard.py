"""Runs a program under watch: which sockets it asks for, and which files it writes or tries to.

Python's own calls are seen by an audit hook. What native code does is seen by strace, where that is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOOK = """
import json, os, sys
def _watch():
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY
    changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
               "os.chown", "os.utime", "os.setxattr", "sqlite3.connect"}
    log = os.open(os.environ.pop("GUARD_LOG"), os.O_WRONLY | os.O_APPEND)
    def hook(event, details):
        if event.startswith("socket.") or event in changes or (event == "open" and details[2] & writes):
            os.write(log, (json.dumps([event, [os.fsdecode(d) for d in details[:1 if event == "open" else None] if isinstance(d, (str, bytes, os.PathLike))]]) + "\\n").encode())
    sys.addaudithook(hook)
_watch()
"""  # noqa: E501
STRACE = shutil.which("strace")
NETWORK = "socket,socketpair,connect,bind,listen,accept,accept4,sendto,sendmsg,sendmmsg,recvfrom,recvmsg,recvmmsg"
CHANGING = (
    "mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat,"
    "truncate,chmod,fchmodat,chown,lchown,fchownat,utimensat,setxattr,creat"
)
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<rest>.*)$")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<at>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE")


@dataclass(frozen=True)
class Watched:
    """What a program did.

    Attributes:
        code: How it ended.
        out: Stdout.
        err: Stderr.
        network: Every call for a socket.
        written: Every path that it wrote, changed or tried to.
    """

    code: int
    out: str
    err: str
    network: tuple[str, ...]
    written: tuple[Path, ...]

    def outside(self, *allowed: Path) -> list[Path]:
        """What lies in none of the folders; the null device is nobody's."""
        return [
            path
            for path in self.written
            if path != Path(os.devnull) and not any(path.is_relative_to(folder) for folder in allowed)
        ]


def watched(code: str, *words: object, cwd: Path, scratch: Path, environment: dict[str, str]) -> Watched:
    """Run a Python program with arguments, watched from its first line.

    Args:
        code: The program.
        words: Its arguments.
        cwd: Its folder.
        scratch: A folder of the watcher.
        environment: All of its environment.
    """
    log, trace = scratch / "audit", scratch / "strace"
    log.write_text("")
    line = [sys.executable, "-B", "-W", "error", "-c", HOOK + code, *map(str, words)]
    if STRACE:
        calls = f"open,openat,openat2,{NETWORK},{CHANGING}"
        line = [
            STRACE,
            "-f",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            f"trace=?{calls.replace(',', ',?')}",
            "-o",
            str(trace),
            *line,
        ]
    ended = subprocess.run(
        line, cwd=cwd, env=environment | {"GUARD_LOG": str(log)}, capture_output=True, timeout=300, check=False
    )
    network, written = [], []
    for entry in log.read_text().splitlines():
        event, paths = json.loads(entry)
        if event.startswith("socket."):
            network.append(entry)
        else:
            written += [cwd / path for path in paths if path != ":memory:" and not path.startswith("file:")]
    for entry in trace.read_text().splitlines() if STRACE else ():
        call = _CALL.match(entry)
        if call is None:
            continue
        if call["name"] in NETWORK.split(","):
            network.append(entry)
        elif not call["name"].startswith("open") or _WRITES.search(call["rest"]):
            written += [Path(found["at"] or cwd, found["path"]) for found in _PATH.finditer(call["rest"])]
    paths = tuple(Path(os.path.normpath(path)) for path in written if path != log)
    return Watched(ended.returncode, ended.stdout.decode(), ended.stderr.decode(), tuple(network), paths)
