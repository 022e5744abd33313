"""The page ``docs/reliability.md``, made from the last long run of the fuzzer and of the soak.

``python docs/make/reliability.py`` writes it from ``results/reliability/fuzz.json`` and ``soak.json``, and a test says
when it is out of date. ``make fuzz`` calls it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FUZZ, SOAK = (ROOT / "results" / "reliability" / f"{name}.json" for name in ("fuzz", "soak"))

CLASSES = {
    "refused": "A typed error with one line for what is wrong and one for what to do. Nothing was printed.",
    "right": "The file was read, and the answer is that of the undamaged file, bit by bit.",
    "warned": "The answer is different, and a new warning says why.",
    "unknowable": "The answer is different, and nothing in the file shows that it is wrong.",
    "untidy": "Refused, but with a message of several lines, without a hint, or with something printed.",
    "wrong": "The answer is different, although a checksum, a length or another slice of the series contradicts it.",
    "bare": "A different kind of exception, such as `KeyError`.",
    "crashed": "The process died.",
    "hung": "No answer in 20 s of CPU time.",
    "greedy": "More than 256 MiB of memory for a file of less than 0.5 MB.",
}
GOOD = ("refused", "right", "warned", "unknowable")
BAD = tuple(name for name in CLASSES if name not in GOOD)

INTRODUCTION = """# Reliability

A server runs for weeks and reads files from scanners, archives and researchers. Some of these files are damaged. Two
programs test what happens then. `docs/make/reliability.py` makes this page from their results.

## Damaged files

The fuzzer takes good files of every format, damages them, and reads them:

```
make fuzz MINUTES=30                                                # writes results/reliability/fuzz.json and this page
cd tests && PYTHONPATH=.. python -m fuzz --replay 1/nrrd-gzip/158   # one file again: seed of the run, good file, number
```

- **Good files** are small and made by code (`tests/fuzz/seeds*.py`). No scan of a patient is among them.
- **Damage** is what discs, copies, programs and attackers do: bits flip, sectors are lost, files end early, fields
  hold boundary values, lines are repeated, sequences nest 40,000 deep, few bytes unpack to 400 MiB. The content of
  compressed files is damaged before packing, so that checksums are right and the inner parser is reached.
- **A separate process** reads each file, and another process watches it. A crash, a hang or too much memory is a fault.
- **The judge** is separate code (`tests/fuzz/oracle.py`) and uses nothing of the SDK. It knows the good file's
  answer.

The run is determined by its seed: the same number gives the same file on every machine. `pytest tests/fuzz` tries a
fixed number, in a minute or two. It also checks that every planted fault is found: readers that abort, hang, give
wrong answers, print or use too much memory.

### Classes

"""

RULES = """### What a format can know

Raw voxels have no checksum in most formats. If only voxels were damaged, the answer must be exactly the voxels in the
file. Everything else is judged by the rule of its format:

| format | a different answer is wrong if |
|---|---|
| NIfTI | gzip's checksum or length fails; header and length disagree |
| MetaImage | zlib's checksum fails; a field is repeated; sizes, `NDims`, `CompressedDataSize` and length disagree |
| NRRD | gzip's or bzip2's checksum fails; a field is repeated; sizes, `dimension` and length disagree |
| DICOM | pixels are not as many as the header says, or their code stream has a different size or does not end |
| DICOM series | the scale, size, patient or frame of reference of one slice differs from the other slices |
| | one slice moved by over 0.5 mm or is missing, without a warning; slices that were not damaged changed |
| zip | a CRC fails, or the directory lists more or fewer files than it counts |
| bundle | a file's sha256 is not the manifest's, or a key of the manifest is repeated |
| network | P, score, CAM or segmentation lie outside their range |
| case base | SQLite's integrity check, constraints or length fail |
| point file, DICOM marks | a point is not finite; a key of a JSON object is repeated |
| table of cases | a case is repeated; a number is not finite; a key of a JSON object is repeated |
| filter of cases | the filter and its opposite do not split the cases, or the case base has changed |
| DICOMweb, fetched | an object that the server lists is not in the CT; or a rule of DICOM series |
| DICOMweb, stored | the answer does not say that the object was stored |

Uninitialised memory gives a different answer each time. So a file with a different answer is read twice.

### Counts

"""

SOAK_TEXT = """## Weeks of work

`nodule-diag bench soak` asks for thousands of predictions in one process: good files of all formats, damaged files,
points outside the CT. Every input must lead to the same answer each time, bit by bit. Memory may not grow by more than
20 MiB; open files, threads and child processes may not grow at all.

"""
NOT_RUN = "No run has been recorded yet.\n"


def page(fuzz: dict[str, Any] | None, soak: dict[str, Any] | None) -> str:
    """The page from the two documents."""
    classes = [f"| {name} | {'' if name in GOOD else '**fault** '}| {text} |" for name, text in CLASSES.items()]
    table = "\n".join(["| class | | what it means |", "|---|---|---|", *classes]) + "\n\n"
    counts = NOT_RUN if fuzz is None else _fuzz_text(fuzz)
    return INTRODUCTION + table + RULES + counts + "\n" + SOAK_TEXT + (NOT_RUN if soak is None else _soak_text(soak))


def _fuzz_text(fuzz: dict[str, Any]) -> str:
    faults = sum(row[kind] for row in fuzz["formats"] for kind in BAD)
    unread = sum(row["unread"] for row in fuzz["formats"])
    kinds = [*GOOD, *(kind for kind in BAD if any(row[kind] for row in fuzz["formats"]))]
    kinds += ["unread"] * bool(unread)
    total = {name: sum(row[name] for row in fuzz["formats"]) for name in ("tried", *kinds)}
    rows = [*fuzz["formats"], {"format": "**all**", **total}]
    lines = [
        f"**{fuzz['mutants']:,} damaged files, {faults:,} faults**"
        f" ({', '.join(f'{total.get(kind, 0):,} {kind}' for kind in BAD)}).",
        "",
        f"{_run(fuzz['environment'])} Seed {fuzz['seed']}, {fuzz['seconds'] / 60:.0f} minutes,"
        f" {fuzz['per_second']:.0f} files a second by {fuzz['jobs']} processes.",
        "",
        "| format | tried | " + " | ".join(kinds) + " |",
        "|---|" + "---:|" * (len(kinds) + 1),
        *("| " + " | ".join([row["format"], *(f"{row[name]:,}" for name in ("tried", *kinds))]) + " |" for row in rows),
        "",
    ]
    if unread:
        lines += ["*unread*: the good file itself is of a kind that this version does not read.", ""]
    return "\n".join(lines)


def _soak_text(soak: dict[str, Any]) -> str:
    (table,) = soak["tables"]
    heads = [column["label"] for column in table["columns"]]
    missed = [one["name"] for one in soak["checks"] if not _holds(one)]
    lines = [
        f"**{'Every bound held.' if not missed else 'Missed: ' + '; '.join(missed)}** {_run(soak['environment'])}"
        f" Threads: {soak['environment']['threads']}. Minutes: {soak['wall_s'] / 60:.0f}.",
        "",
        "| what | " + " | ".join(str(row[0]) for row in table["rows"]) + " |",
        "|---|" + "---:|" * len(table["rows"]),
    ]
    for number, head in list(enumerate(heads))[1:]:
        cells = [_figure(row[number]) for row in table["rows"]]
        lines.append(f"| {head} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{soak['subject']}.", ""])


def _figure(value: float) -> str:
    # Zero is added so that -0.0 reads 0.0.
    return f"{value:,}" if isinstance(value, int) else f"{round(value, 1) + 0.0:,.1f}"


def _holds(check: dict[str, Any]) -> bool:
    return bool(check["value"] <= check["limit"] if check["rule"] == "at most" else check["value"] >= check["limit"])


def _run(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    memory = f", {environment['memory_gib']:.0f} GiB" if environment["memory_gib"] else ""
    return (
        f"Run on {environment['date'][:10]} at commit {environment['commit']}: {environment['cpu']},"
        f" {environment['cores']} cores{memory}, {environment['platform']}, Python {environment['python']}, {versions}."
    )


def _read(path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def made() -> str:
    """The page from what is committed."""
    return page(_read(FUZZ), _read(SOAK))


def main() -> None:
    """Write the page."""
    PAGE.write_text(made(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
