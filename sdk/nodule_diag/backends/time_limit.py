"""A call of the network ends: what takes far longer than any machine needs is stopped, and is an error.

It is the second line. The first (:mod:`nodule_diag.backends.onnx_file`) refuses graphs that need not end at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from nodule_diag.errors import BackendError

SECONDS_A_PATCH: Final = 120.0
"""A thousand times what the packaged network needs on one core of 2020: a slow or crowded machine is never told off."""


@contextmanager
def time_limit(patches: int, stop: Callable[[], object], *, name: str) -> Iterator[None]:
    """Stop what runs inside when its time is over.

    Args:
        patches: How many are shown to the network; their number times :data:`SECONDS_A_PATCH` is the limit.
        stop: Makes the runtime give up, from another thread: what runs inside then raises.
        name: Of the backend, for the error.

    Raises:
        BackendError: ``inference-timeout`` in place of what the stopped runtime raises.
    """
    seconds = SECONDS_A_PATCH * max(patches, 1)
    over = threading.Event()

    def expire() -> None:
        over.set()
        stop()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if not over.is_set():
            raise
        raise BackendError(
            f"{name} was stopped: it had not answered for {patches} patches within {seconds:g} s",
            hint="use another backend with --backend, or take the bundle from where it was made",
            code="inference-timeout",
        ) from error
    finally:
        timer.cancel()
