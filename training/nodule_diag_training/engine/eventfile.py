"""A run's scalars for TensorBoard, written step by step at each checkpoint.

This uses tensorboardX and not ``torch.utils.tensorboard``: tensorboardX needs only protobuf and packaging, while the
other imports the whole viewer. The event writer is used without the threads of ``SummaryWriter``, so that a full disk
raises an error here and does not end a thread unnoticed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from nodule_diag.errors import OutputError

FOLDER = "tensorboard"


class EventFile:
    """A new event file in a run's folder.

    A run that resumes first tells the viewer to drop the later steps of earlier files, so that no step is shown
    twice.

    Args:
        folder: The run's folder.
        begin: The first step that will be written.

    Raises:
        OutputError: If it cannot be written.
    """

    def __init__(self, folder: Path, *, begin: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._path = folder / FOLDER
        self._event = Event
        try:
            self._path.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(self._path / "events"), filename_suffix=f".{begin}")
            if begin:
                start = SessionLog(status=SessionLog.START)
                self._writer.write_event(Event(wall_time=time.time(), step=begin, session_log=start))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror or error}", hint="check its permissions and free space"
        )

    def add(self, group: str, values: Mapping[str, float], *, step: int) -> None:
        """Write scalars ``group/name`` of a step.

        Raises:
            OutputError: If they cannot be written.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(
            value=[Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
        )
        try:
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Hand everything to the operating system.

        Raises:
            OutputError: If the operating system refuses it.
        """
        try:
            self._writer.flush()
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        except OSError as failed:
            if error is None:
                raise self._failed(failed) from failed
