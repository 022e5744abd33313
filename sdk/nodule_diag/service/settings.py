"""The operator's settings of the service: its address, who may use it, and its limits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nodule_diag.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MIB, GIB = 2**20, 2**30
LEAST_TOKEN = 16
"""Characters; a shorter one can be guessed."""


@dataclass(frozen=True)
class Settings:
    """The settings of one service. Every limit has its own number, and no limit is off.

    Attributes:
        host: Address to listen at. Any address but this machine's own needs a ``token``.
        port: Its port; 0 takes a free one.
        names: Other host names of the service, for example behind a proxy.
        token: The token that every request must carry; None requires none.
        root: The folder below which a request may name a CT by its path; None: no paths.
        keep: A folder in which every prediction document is kept; None keeps nothing.
        demo: Whether a made-up chest is there from the start.
        dicomweb: Servers (their DICOMweb roots) from which a request may fetch a CT; none when empty.
        upload_bytes: Most bytes of one request.
        uploads_bytes: Most bytes of all requests that are being received.
        ct_voxels: Most voxels of one CT.
        cts: CTs that are held at a time.
        cts_bytes: Their memory, with the files of DICOM CTs.
        expires_s: Seconds for which a CT is held after it was last used.
        nodules: Most nodules of one request.
        queue: Pieces of work that may wait; above this number the answer is 429.
        workers: Pieces of work at a time; None: one on a CPU, where one piece uses all cores, and four on a GPU.
        work_s: Seconds a piece of work may take, waiting not counted.
        receive_s: Seconds in which a request must be complete.
        idle_s: Seconds a client may send or take nothing, within a request or its answer.
        stop_s: Seconds in which running work may finish when the service is told to stop.
        jobs: Finished jobs that are kept.
        job_s: Seconds for which finished jobs are kept.
        connections: Connections open at a time; above this number the answer is 503.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token: str | None = None
    root: Path | None = None
    keep: Path | None = None
    demo: bool = False
    dicomweb: tuple[str, ...] = ()
    upload_bytes: int = 2 * GIB
    uploads_bytes: int = 4 * GIB
    ct_voxels: int = 1024 * MIB
    cts: int = 8
    cts_bytes: int = 8 * GIB
    expires_s: float = 1800.0
    nodules: int = 64
    queue: int = 32
    workers: int | None = None
    work_s: float = 300.0
    receive_s: float = 600.0
    idle_s: float = 20.0
    stop_s: float = 30.0
    jobs: int = 64
    job_s: float = 600.0
    connections: int = 256

    def __post_init__(self) -> None:
        """Refuse settings that would open the service to everyone, or that make no sense.

        Raises:
            UsageError: ``token-required``, ``token-short``, ``not-a-folder`` or ``usage``.
        """
        if self.token is None and self.host not in LOOPBACK:
            raise UsageError(
                f"{self.host} can be reached by others, and no token is set",
                hint="give --token-file FILE, or leave --host out",
                code="token-required",
            )
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise UsageError(
                f"the token has {len(self.token)} characters; it needs at least {LEAST_TOKEN}",
                hint="make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
                code="token-short",
            )
        for name in ("root", "keep"):
            folder = getattr(self, name)
            if folder is not None and not folder.is_dir():
                raise UsageError(
                    f"{folder} is not a folder", hint=f"give an existing folder with --{name}", code="not-a-folder"
                )
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{name} is {value}; it must be at least {least}", hint="leave it out")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK


LEAST = {
    **dict.fromkeys(("port", "jobs"), 0),
    **dict.fromkeys(("cts", "queue", "workers", "nodules", "connections"), 1),
    **dict.fromkeys(("upload_bytes", "uploads_bytes", "ct_voxels", "cts_bytes"), 1),
    **dict.fromkeys(("expires_s", "work_s", "receive_s", "idle_s", "stop_s", "job_s"), 0.01),
}
"""The lowest value of each limit."""


def read_token(path: str | os.PathLike[str]) -> str:
    """The token in a file: its first line.

    Raises:
        UsageError: ``token-file`` for a file that cannot be read, is empty or is not ASCII.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="give a text file", code="token-file") from error
    token = lines[0].strip() if lines else ""
    if not token.isascii():  # clients agree only on ASCII in a header
        raise UsageError(
            f"{path} holds a token that is not ASCII",
            hint="write a token of ASCII characters into it",
            code="token-file",
        )
    if not token:
        raise UsageError(
            f"{path} holds no token in its first line", hint="write the token into its first line", code="token-file"
        )
    return token
