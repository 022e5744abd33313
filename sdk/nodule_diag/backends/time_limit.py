"""A time limit for calls of the network: a call that takes far longer than any machine needs is stopped with an error.

This is the second check. The first one (:mod:`nodule_diag.backends.onnx_file`) refuses graphs that may never end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from nodule_diag.errors import BackendError

SECONDS_A_PATCH: Final = 120.0
"""A thousand times the packaged network's time on one core of 2020, so a slow or busy machine is not stopped."""


@contextmanager
def time_limit(patches: int, stop: Callable[[], object], *, name: str) -> Iterator[None]:
    """Stop the call inside the block when its time is over.

    Args:
        patches: The number of patches of the call; this number times :data:`SECONDS_A_PATCH` is the limit.
        stop: Stops the runtime, from another thread; the call inside then raises.
        name: The backend's name, for the error.

    Raises:
        BackendError: ``inference-timeout`` instead of the stopped runtime's error.
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
