"""The process that reads mutants: whatever happens to it, a number of a mutant is known and nobody else is hurt.

`fuzz.campaign.Worker` starts it. It takes pickled questions on its standard input and answers on its standard output.
What the readers print goes into a file in memory; printing is a fault.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import resource
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fuzz.oracle import RIGHT, judge
from fuzz.readers import Answer
from fuzz.seed import Files, Seed
from fuzz.ways import mutant
from nodule_diag.errors import MAX_MESSAGE, NoduleDiagError

REFUSED, UNTIDY, BARE, GREEDY, WRONG = "refused", "untidy", "bare", "greedy", "wrong"
HEADROOM_BYTES = 3 * 2**30
"""Address space beyond what the good files took: an allocation of gigabytes fails here and not in the machine."""
MOST_RISE_BYTES = 256 * 2**20
"""Memory that a file of 50 kB may take while it is read: deflate's best ratio gives 50 MB."""
MOST_BUNDLE_BYTES = 1280 * 2**20
"""The same for a bundle, whose stated limit is 1 GiB (`nodule_diag.bundle.bundle.MAX_TOTAL_BYTES`)."""
MOST_CHILD_BYTES = 512 * 2**20
"""The same for a process that the reader starts, with its libraries."""
MOST_MESSAGE = MAX_MESSAGE
LENGTH = struct.Struct("<I")


class Question(NamedTuple):
    """A mutant by its number, or files that the seed's reader is to be given."""

    seed: str
    run: int = 0
    number: int = 0
    files: Files | None = None


class Outcome(NamedTuple):
    """What a question led to.

    Attributes:
        kind: A class of docs/reliability.md.
        why: The error's code, or what is wrong.
        way: How the mutant was made.
        spent: The process has taken memory that it will not give back; start another.
    """

    kind: str
    why: str = ""
    way: str = ""
    spent: bool = False


def send(stream: BinaryIO, what: object) -> None:
    """Write one message."""
    data = pickle.dumps(what)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message; None at the end."""
    head = stream.read(LENGTH.size)
    return pickle.loads(stream.read(LENGTH.unpack(head)[0])) if len(head) == LENGTH.size else None


class Desk:
    """Reads mutants of seeds in a folder of its own, and remembers what the seeds themselves gave."""

    def __init__(self, seeds: list[Seed], readers: dict[str, Any], folder: Path, noise: int) -> None:
        self._seeds = {seed.name: seed for seed in seeds}
        self._others = [data for seed in seeds for data in seed.files.values()]
        self._readers, self._folder, self._noise = readers, folder, noise
        self._good: dict[str, Answer | Outcome] = {}
        self._there: dict[str, Files] = {}

    def answer(self, question: Question) -> Outcome:
        """Make the mutant, read it, judge what came of it."""
        seed = self._seeds[question.seed]
        good = self._good.get(seed.name) or self._settle(seed)
        way, files = "", question.files
        if files is None:
            way, files = mutant(seed, question.number, run=question.run, others=self._others)
        if isinstance(good, Outcome):
            return good._replace(kind="unread", way=way)
        before, children = _resident_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew: proc(5)
        outcome = self._outcome(seed, files, good)
        rise = _peak_bytes("self") - before
        child = max(_children_peak_bytes(), _risen(children) * 1024)
        if (
            rise > (MOST_BUNDLE_BYTES if seed.reader in ("bundle", "model") else MOST_RISE_BYTES)
            or child > MOST_CHILD_BYTES
        ):
            why = f"{max(rise, child) / 2**20:.0f} MiB, then {outcome.kind}: {outcome.why}"
            outcome = Outcome(GREEDY, why, spent=True)
        return outcome._replace(way=way)

    def _settle(self, seed: Seed) -> Answer | Outcome:
        """Read the seed itself, and allow so much more memory than that took."""
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found = self._read(seed, seed.files)
        self._good[seed.name] = found
        self._heard()
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM_BYTES, resource.RLIM_INFINITY))
        return found

    def _outcome(self, seed: Seed, files: Files, good: Answer) -> Outcome:
        found = self._read(seed, files)
        heard = self._heard()
        if isinstance(found, Outcome):
            return Outcome(UNTIDY, f"printed {heard!r}") if heard and found.kind == REFUSED else found
        kind, why = judge(seed, files, good, found)
        if kind not in (RIGHT, WRONG):  # memory that was never written gives other voxels each time
            again = self._read(seed, files)
            if not isinstance(again, Answer) or again.value != found.value:
                kind, why = WRONG, "read twice, two answers"
        return Outcome(UNTIDY, f"printed {heard!r}") if heard and kind != WRONG else Outcome(kind, why)

    def _read(self, seed: Seed, files: Files) -> Answer | Outcome:
        path = self._written(seed, files)
        try:
            return self._readers[seed.reader](path)
        except NoduleDiagError as error:
            faults = ["no hint"] * (not error.hint) + ["several lines"] * ("\n" in f"{error}{error.hint}")
            faults += ["a long message"] * (len(str(error)) > MOST_MESSAGE)
            return Outcome(UNTIDY, f"{error.code}: {', '.join(faults)}") if faults else Outcome(REFUSED, error.code)
        except MemoryError as error:
            return Outcome(GREEDY, f"MemoryError: {error}")
        except Exception as error:  # noqa: BLE001 - just this is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(
                BARE, f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
            )

    def _written(self, seed: Seed, files: Files) -> Path:
        """Write what is not there yet, and take away what does not belong."""
        folder = self._folder / seed.name
        there = self._there.setdefault(seed.name, {})
        if not folder.exists():
            (folder / seed.entry).parent.mkdir(parents=True, exist_ok=True)
        for name in [name for name in there if name not in files]:
            (folder / name).unlink()
            del there[name]
        for name, data in files.items():
            if there.get(name) != data:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
                there[name] = data
        (folder / seed.entry).parent.mkdir(exist_ok=True)
        return folder / seed.entry

    def _heard(self) -> str:
        """What was printed since it was last asked."""
        sys.stdout.flush()
        sys.stderr.flush()
        size = os.fstat(self._noise).st_size
        text = os.pread(self._noise, 300, 0).decode("utf-8", "replace") if size else ""
        if size:
            os.ftruncate(self._noise, 0)
            os.lseek(self._noise, 0, os.SEEK_SET)
        return text


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _risen(before_kib: int) -> int:
    now = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return now if now > before_kib else 0


def _peak_bytes(process: str) -> int:
    """The highest memory of a process; 0 for one that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _children_peak_bytes() -> int:
    """The highest memory of any process that this one has started and that is still there."""
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            children += (task / "children").read_text().split()
    return max(map(_peak_bytes, children), default=0)


def main() -> None:
    """Answer until nothing is asked any more. Arguments: the file of the seeds, and the module with ``READERS``."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    noise = os.memfd_create("noise")
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    warnings.simplefilter("always")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seeds = pickle.loads(Path(sys.argv[1]).read_bytes())
    readers = importlib.import_module(sys.argv[2]).READERS
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="nodule-diag-fuzz-", dir=memory if memory.is_dir() else None))
    send(answers, str(folder))
    try:
        desk = Desk(seeds, readers, folder, noise)
        while (question := receive(questions)) is not None:
            send(answers, desk.answer(question))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
