"""``PYTHONPATH=.. python -m fuzz``, from tests/: a campaign by time or by number, or one mutant again."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.environment import Environment
from fuzz.campaign import BAD, KINDS, TESTS, Plan, Tally, Worker, carry_out, files_of, pickled
from fuzz.seed import Seed
from fuzz.seeds import all_seeds
from fuzz.worker import Question

ROUND = 20
SCHEMA = "nodule-diag/fuzz/1"
SCRATCH = TESTS.parent / "build" / "fuzz"
EXAMPLES_EACH = 5
VERSIONS = (
    "nodule-diag",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pyjpegls",
    "SimpleITK",
    "numpy",
    "onnxruntime",
    "isal",
)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="go on for so long; else --mutants")
    parser.add_argument("--mutants", type=int, default=200, help="of each seed")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices")
    parser.add_argument("--only", default="", help="seeds whose name holds this")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="write the counts here, as JSON")
    parser.add_argument("--keep", type=Path, default=SCRATCH / "findings", help="folder for the files of findings")
    parser.add_argument("--replay", metavar="SEED/NAME/NUMBER", help="read one mutant again, and keep its files")
    return parser.parse_args()


def document(tally: Tally, seeds: list[Seed], options: argparse.Namespace) -> dict[str, Any]:
    """The result, as it is committed."""
    made = hashlib.sha256(repr([(seed.name, sorted(seed.files.items())) for seed in seeds]).encode()).hexdigest()
    examples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in tally.findings:
        examples.setdefault((one["kind"], one["mutant"].split("/")[1]), []).append(one)
    return {
        "schema": SCHEMA,
        "seed": options.seed,
        "minutes": options.minutes,
        "mutants": tally.tried,
        "seconds": round(tally.seconds, 1),
        "per_second": round(tally.tried / tally.seconds, 1),
        "jobs": options.jobs,
        "seeds": len(seeds),
        "seeds_sha256": made,
        "environment": asdict(Environment.now(threads=1)) | {"versions": {name: version(name) for name in VERSIONS}},
        "formats": [
            {"format": name, "tried": counts.total(), **{kind: counts[kind] for kind in KINDS}}
            for name, counts in tally.counts.items()
        ],
        "findings": [one for some in examples.values() for one in some[:EXAMPLES_EACH]],
    }


def rounds(options: argparse.Namespace) -> Iterator[range]:
    """Numbers of mutants."""
    starts = count(0, ROUND) if options.minutes else range(0, options.mutants, ROUND)
    for start in starts:
        yield range(start, start + ROUND if options.minutes else min(start + ROUND, options.mutants))


def replay(seeds: list[Seed], options: argparse.Namespace) -> int:
    """One mutant again."""
    run, name, number = options.replay.split("/")
    seed = next(seed for seed in seeds if seed.name == name)
    _, files = files_of(seeds, seed, run=int(run), number=int(number))
    folder = SCRATCH / "replay"
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    with pickled(seeds, SCRATCH) as file, Worker(file) as worker:
        outcome = worker.ask(Question(name, int(run), int(number)))
    print(f"{outcome.kind} ({outcome.way}): {outcome.why}\n{folder / seed.entry}")
    return outcome.kind in BAD


def main() -> int:
    """Run, print the counts, write them; 1 where anything bad was found."""
    options = arguments()
    seeds = all_seeds()
    if options.replay:
        return replay(seeds, options)
    until = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    plan = Plan(seeds, options.seed, rounds(options), options.only, options.jobs, until, options.keep)
    tally = carry_out(plan, SCRATCH)
    result = document(tally, seeds, options)
    shown = [kind for kind in KINDS if any(row[kind] for row in result["formats"])]
    print(f"{'':28}{'tried':>9}" + "".join(f"{kind:>11}" for kind in shown))
    for row in result["formats"]:
        print(f"{row['format']:28}{row['tried']:9}" + "".join(f"{row[kind]:11}" for kind in shown))
    print(f"{tally.tried} mutants in {tally.seconds:.0f} s, {result['per_second']:.0f} a second, seed {options.seed}")
    for one in result["findings"]:
        print(f"{one['kind']:8} {one['mutant']} ({one['way']}): {one['why']}"[:300])
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return any(row[kind] for row in result["formats"] for kind in BAD)


if __name__ == "__main__":
    sys.exit(main())
