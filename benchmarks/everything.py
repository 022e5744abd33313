"""``bench all``: each part in a process of its own. Results are kept, so that finished parts are not measured again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.child import child_environment
from benchmarks.results import Part, read_part
from benchmarks.session import settings_record
from benchmarks.subject import Settings
from nodule_diag.errors import NoduleDiagError, OutputError, UsageError


class PartFailedError(NoduleDiagError, RuntimeError):
    """Parts of ``bench all`` failed; the results of the others have been written."""

    code = "bench-part-failed"


def done_before(path: Path, settings: Settings) -> Part | None:
    """The result in a file, if it is of this part with the same settings; its commit may be any."""
    if not path.is_file():
        return None
    try:
        part = read_part(path)
    except UsageError:  # written by another version, or incomplete: measured again
        return None
    return part if part.settings == settings_record(settings) else None


def run_all(
    names: Sequence[str],
    *,
    settings: Settings,
    options: Sequence[str],
    folder: Path,
    again: bool,
    say: Callable[[str], None],
) -> list[Part]:
    """Run parts, one after the other.

    Args:
        names: The parts.
        settings: The settings of all parts.
        options: The settings as command-line words.
        folder: The folder of the ``NAME.json`` files.
        again: Run finished parts, too.
        say: Receives progress messages.

    Returns:
        The results, in the order of the names.

    Raises:
        OutputError: If the folder cannot be made.
        PartFailedError: After the last part, if any has failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", hint="name another --out") from error
    failed = []
    for name in names:
        path = folder / f"{name}.json"
        done = None if again else done_before(path, settings)
        if done is not None:
            say(f"{name}: kept, measured {done.environment.date} at {done.environment.commit}")
            continue
        say(f"{name}: running")
        begin = time.perf_counter()
        command = [sys.executable, "-m", "nodule_diag_cli", "bench", name, *options, "--out", str(path)]
        code = subprocess.run(command, env=child_environment(), check=False).returncode
        say(f"{name}: {'done' if code == 0 else f'ended with {code}'} after {time.perf_counter() - begin:.0f} s")
        failed += [name] * (code != 0)
    if failed:
        raise PartFailedError(
            f"{', '.join(failed)} failed; what the others found is in {folder}",
            hint="run again: what is done is kept",
        )
    return [read_part(folder / f"{name}.json") for name in names]
