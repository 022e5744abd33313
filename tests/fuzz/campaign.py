"""Many mutants, side by side: workers that are watched, restarted when they die, and whose outcomes are counted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fuzz.seed import Files, Seed
from fuzz.ways import mutant
from fuzz.worker import Outcome, Question, receive, send

TESTS = Path(__file__).resolve().parent.parent
GOOD = ("refused", "right", "warned", "unknowable")
BAD = ("untidy", "wrong", "bare", "crashed", "hung", "greedy")
KINDS = (*GOOD, *BAD, "unread")
"""Classes of outcomes; docs/reliability.md says what each means. ``unread``: the seed itself is not read."""
MOST_CPU_S = 20.0
MOST_WALL_S = 120.0
"""A mutant takes milliseconds. What takes so much CPU time, or so long without, hangs: on the slowest machine, too."""
SAVED_EACH = 5
"""Files of so many mutants of one seed and class are kept."""


class Worker:
    """A process that answers questions; a new one after each death.

    Args:
        pickled: The file of the seeds.
        readers: Module with ``READERS``.
        most_cpu_s: See `MOST_CPU_S`.
        most_wall_s: See `MOST_WALL_S`.
    """

    def __init__(
        self,
        pickled: Path,
        *,
        readers: str = "fuzz.readers",
        most_cpu_s: float = MOST_CPU_S,
        most_wall_s: float = MOST_WALL_S,
    ) -> None:
        self._command = [sys.executable, "-c", "import fuzz.worker; fuzz.worker.main()", str(pickled), readers]
        self._most_cpu_s, self._most_wall_s = most_cpu_s, most_wall_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""

    def ask(self, question: Question) -> Outcome:
        """Ask, and wait for the answer, the death or the end of patience."""
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        send(process.stdin, question)
        begin, cpu = time.monotonic(), _cpu_s(process.pid)
        while not select.select([process.stdout], [], [], 0.5)[0]:
            took = _cpu_s(process.pid) - cpu
            if took > self._most_cpu_s or time.monotonic() - begin > self._most_wall_s:
                self.close()
                return Outcome("hung", f"after {self._most_cpu_s:g} s of CPU time or {self._most_wall_s:g} s")
        outcome: Outcome | None = receive(process.stdout)
        if outcome is None:
            code = process.wait()
            self.close()
            return Outcome("crashed", signal.Signals(-code).name if code < 0 else f"exit code {code}")
        if outcome.spent:
            self.close()
        return outcome

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
        pipe = subprocess.PIPE
        process = self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True, cwd=TESTS.parent
        )
        assert process.stdout
        self._folder = receive(process.stdout) or ""
        if not self._folder:
            raise RuntimeError(f"{' '.join(self._command)} does not start")
        return process

    def close(self) -> None:
        """End the process with all that it has started."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    pipe.close() if pipe else None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cpu_s(pid: int) -> float:
    """CPU time of a process, and of the children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pickled(seeds: list[Seed], folder: Path) -> Iterator[Path]:
    """The seeds in a file, for workers."""
    path = folder / f"seeds-{os.getpid()}.pickle"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(seeds))
    try:
        yield path
    finally:
        path.unlink()


@dataclass
class Tally:
    """What a campaign has found.

    Attributes:
        counts: By format and class.
        findings: Of the bad classes, one an entry.
        seconds: Spent.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """Mutants in all."""
        return sum(map(Counter.total, self.counts.values()))

    def digest(self) -> str:
        """Two runs of the same mutants that found the same have the same."""
        found = {name: dict(sorted(counts.items())) for name, counts in sorted(self.counts.items())}
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        seeds: All of them: mutants are spliced from any.
        run: Of all random choices.
        numbers: Mutants of each seed, in rounds.
        only: Of seeds whose name holds this.
        jobs: Workers side by side.
        until: ``time.monotonic()`` at which no further round begins.
        keep: Folder for the files of findings.
        readers: Module with ``READERS``.
    """

    seeds: list[Seed]
    run: int
    numbers: Iterable[range]
    only: str = ""
    jobs: int = 1
    until: float = float("inf")
    keep: Path | None = None
    readers: str = "fuzz.readers"

    def questions(self) -> Iterator[Question]:
        """All mutants, a round of each seed after the other."""
        for numbers in self.numbers:
            for seed in [seed for seed in self.seeds if self.only in seed.name]:
                for number in numbers:
                    if time.monotonic() > self.until:
                        return
                    yield Question(seed.name, self.run, number)


def carry_out(plan: Plan, folder: Path) -> Tally:
    """Ask all questions of a plan, and count."""
    tally, lock, questions = Tally(), threading.Lock(), plan.questions()
    by_name = {seed.name: seed for seed in plan.seeds}
    saved: Counter[tuple[str, str]] = Counter()
    failures: list[BaseException] = []

    def note(question: Question, outcome: Outcome) -> None:
        seed = by_name[question.seed]
        tally.counts.setdefault(seed.format, Counter())[outcome.kind] += 1
        if outcome.kind in BAD:
            name = f"{plan.run}/{seed.name}/{question.number}"
            tally.findings.append({"mutant": name, "kind": outcome.kind, "way": outcome.way, "why": outcome.why})
            saved[seed.name, outcome.kind] += 1
            if plan.keep and saved[seed.name, outcome.kind] <= SAVED_EACH:
                save(plan.keep / outcome.kind / name.replace("/", "-"), plan, seed, question.number, outcome)

    def work() -> None:
        try:
            with Worker(path, readers=plan.readers) as worker:
                while not failures:
                    with lock:
                        question = next(questions, None)
                    if question is None:
                        return
                    outcome = worker.ask(question)
                    with lock:
                        note(question, outcome)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failures.append(error)

    begin = time.monotonic()
    with pickled(plan.seeds, folder) as path:
        threads = [threading.Thread(target=work) for _ in range(plan.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    tally.seconds = time.monotonic() - begin
    tally.findings.sort(key=lambda one: (one["kind"], one["mutant"]))
    return tally


def files_of(seeds: list[Seed], seed: Seed, *, run: int, number: int) -> tuple[str, Files]:
    """A mutant again, among the seeds of its run."""
    return mutant(seed, number, run=run, others=[data for one in seeds for data in one.files.values()])


def save(folder: Path, plan: Plan, seed: Seed, number: int, outcome: Outcome) -> None:
    """Keep the files of a mutant."""
    _, files = files_of(plan.seeds, seed, run=plan.run, number=number)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "outcome.json").write_text(json.dumps(outcome._asdict(), indent=1))
