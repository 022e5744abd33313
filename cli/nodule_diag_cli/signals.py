"""SIGTERM and SIGHUP end a command as an error does: what is half written goes, and the exit code says which signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
EXIT_BASE = 128
"""A shell says 128 plus the signal's number of a program that a signal ended."""


class Terminated(BaseException):
    """A signal told this process to end; no ``except Exception`` may keep it from that.

    Attributes:
        signal: Which.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"ended by {self.signal.name}")

    @property
    def exit_code(self) -> int:
        """128 + n."""
        return EXIT_BASE + self.signal


class _State:
    """Of this process, which has one set of handlers."""

    held = False
    waiting: int | None = None
    arrived: Terminated | None = None


def install() -> None:
    """Turn the signals into :class:`Terminated`; one that is ignored, as under ``nohup``, stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(number: int, _: FrameType | None) -> None:
    if _State.held:
        _State.waiting = number
        return
    for other in SIGNALS:  # whoever asks twice must not interrupt the cleaning up
        signal.signal(other, signal.SIG_IGN)
    _State.arrived = Terminated(number)
    raise _State.arrived


def cause_of(error: BaseException) -> BaseException:
    """The signal that ended this program, where one did: native code that is interrupted says something else."""
    return _State.arrived or error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal wait until the block is done: for the moments in which a result changes places."""
    _State.held = True
    try:
        yield
    finally:
        _State.held = False
        if _State.waiting is not None:
            number, _State.waiting = _State.waiting, None
            _on_signal(number, None)
