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
    "warned": "The answer is another one, and a new warning says why.",
    "unknowable": "The answer is another one, and nothing in the file could have told.",
    "untidy": "Refused, but with a message of several lines, without a hint, or with something printed.",
    "wrong": "Another answer, although a checksum, a length or another slice of the series speaks against it.",
    "bare": "Another kind of exception, such as `KeyError`.",
    "crashed": "The process died.",
    "hung": "No answer in 20 s of CPU time.",
    "greedy": "More than 256 MiB of memory for a file of less than 0.5 MB.",
}
GOOD = ("refused", "right", "warned", "unknowable")
BAD = tuple(name for name in CLASSES if name not in GOOD)

INTRODUCTION = """# Reliability

A server reads what scanners, archives and researchers send it, damaged files among it, for weeks. Two machines try what
happens then. This page shows what they found; `docs/make/reliability.py` makes it from their results.

## Damaged files

The fuzzer takes good files of every format, damages them, and reads them:

```
make fuzz MINUTES=30                                                # writes results/reliability/fuzz.json and this page
cd tests && PYTHONPATH=.. python -m fuzz --replay 1/nrrd-gzip/158   # one file again: seed of the run, good file, number
```

- **Good files** are small and made by code (`tests/fuzz/seeds*.py`). No scan of a patient is among them.
- **Damage** is what discs, copies, programs and attackers do: bits flip, sectors are lost, files end early, fields
  hold boundary values, lines come twice, sequences nest 40,000 deep, few bytes unpack to 400 MiB. Inside compressed
  files it is done before packing, so that checksums are right and the inner parser is reached.
- **A process of its own** reads each file, and another watches it. Its death, its silence and its memory are findings.
- **The judge** is code of its own (`tests/fuzz/oracle.py`) and uses nothing of the SDK. It knows the good file's
  answer.

The run is determined by its seed: the same number gives the same file on every machine. `pytest tests/fuzz` tries a
fixed number, in a minute or two. It also tries that every planted fault is found: readers that abort, hang, lie,
print or eat memory.

### Classes

"""

RULES = """### What a format can know

Raw voxels have no checksum in most formats. Where only they were damaged, the answer must be exactly what stands in the
file. Everything else is judged by the rule of its format:

| format | another answer is wrong if |
|---|---|
| NIfTI | gzip's checksum or length fails; header and length disagree |
| MetaImage | zlib's checksum fails; a field stands twice; sizes, `NDims`, `CompressedDataSize` and length disagree |
| NRRD | gzip's or bzip2's checksum fails; a field stands twice; sizes, `dimension` and length disagree |
| DICOM | pixels are not as many as the header says, or their code stream has another size or does not end |
| DICOM series | one slice has another scale, size, patient or frame of reference than the others |
| | one slice moved by over 0.5 mm or is missing, without a word; slices changed that were not damaged |
| zip | a CRC fails, or the directory lists another number of files than it counts |
| bundle | a file's sha256 is not the manifest's, or a key of the manifest stands twice |
| network | P, score, CAM or segmentation lie outside their range |
| case base | SQLite's integrity check, constraints or length fail |
| point file, DICOM marks | a point is not finite; a key of a JSON object stands twice |
| table of cases | a case stands twice; a number is not finite; a key of a JSON object stands twice |
| filter of cases | it and its opposite do not part the cases, or the case base has changed |
| DICOMweb, fetched | an object that the server lists is not in the CT; or a rule of DICOM series |
| DICOMweb, stored | the answer does not say that the object was stored |

A memory that was never written gives another answer each time: what differs from the good file's is read twice.

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
