"""Settings that are global to the process: changed when the first thread enters, restored when the last one leaves.

Messages of ITK and pydicom stay off stderr while the SDK reads: important faults are raised or noted in the result.
pydicom's import is here too, because it would open a socket, which is not needed.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, ParamSpec

Options = ParamSpec("Options")


class _Shared(Generic[Options]):
    """A context that many threads may be inside of, entered and left once.

    Args:
        context: The first thread enters it with its arguments; the arguments of other threads are ignored.
    """

    def __init__(self, context: Callable[Options, AbstractContextManager[None]]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._inside = 0
        self._entered = ExitStack()

    @contextmanager
    def __call__(self, *args: Options.args, **options: Options.kwargs) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._entered.enter_context(self._context(*args, **options))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._entered.close()


@_Shared
@contextmanager
def quiet_itk() -> Iterator[None]:
    """Silences ITK's warning window inside the block."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@_Shared
@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silences the warnings of pydicom, and of dicomweb-client, which uses pydicom, inside the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom|dicomweb_client")
        yield


class _NoRequests:
    """An importer in first place that hides the package requests from one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name == "requests" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("pydicom is imported without requests", name=name)


def import_pydicom() -> None:
    """Import pydicom, for the first time in a process, without requests.

    pydicom imports requests if installed, for downloads of its own examples, and uses urllib otherwise. requests needs
    urllib3, which binds a socket when it is imported, to test whether IPv6 works.
    """
    finder = _NoRequests()
    sys.meta_path.insert(0, finder)
    try:
        import pydicom  # noqa: F401
    finally:  # a new list: another thread may iterate over the old one
        sys.meta_path = [each for each in sys.meta_path if each is not finder]


@_Shared
@contextmanager
def filter_threads(threads: int) -> Iterator[None]:
    """Limits SimpleITK's filters to this number of threads inside the block."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
