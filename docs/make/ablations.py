"""The page ``docs/ablations.md``, made from what ``nodule-diag train ablate`` found.

``python docs/make/ablations.py`` writes it from ``results/ablations/``, and a test says when the page is out of date.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

from nodule_diag_training.recipe.ablation import table

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "results" / "ablations"
PAGE = ROOT / "docs" / "ablations.md"

INTRODUCTION = """# What each departure is worth

The recipe departs from the paper in the ways that [training.md](training.md#what-departs-from-the-paper) gives reasons
for. Each was switched off alone in a short run: 40-cubes (20 mm), the same steps and seed, ten minutes of two cores.
Every run judges the same {nodules} nodules of {patients} patients and {places} places in a lung. No run learned from
these patients, and none of them is in fold 0. Runs so short are worse than the packaged model.

The first line of a table has the recipe's figures; the others say what changes without the departure. An interval holds
95 % of 2,000 draws of patients. It does not hold what another seed would change. *Diagnoses* are {diagnosed} nodules:
too few to tell anything.

`docs/make/ablations.py` makes this page of `results/ablations/`: a copy of each run folder's `ablations.json.xz`.
[What follows from it](training.md#what-the-departures-are-worth) is in training.md.
"""
SECTION = """
## Seed {seed}

```
nodule-diag train ablate{names} --steps {steps} --seed {seed} --out runs/ablations-{seed}
```

{table}
"""


def read() -> list[dict[str, Any]]:
    """The committed reports, that with the most runs first."""
    found = [json.loads(lzma.decompress(file.read_bytes())) for file in sorted(FOUND.glob("*.json.xz"))]
    return sorted(found, key=lambda report: -len(report["judged"]))


def page(reports: list[dict[str, Any]]) -> str:
    """The whole page."""
    rows = reports[0]["judged"]["recipe"]
    nodules = [row for row in rows if row["is_nodule"]]
    text = INTRODUCTION.format(
        nodules=len(nodules),
        patients=len({row["patient_id"] for row in nodules}),
        places=len(rows) - len(nodules),
        diagnosed=sum(row["label"] is not None for row in nodules),
    )
    for number, report in enumerate(reports):
        names = "".join(f" {name}" for name in report["judged"]) if number else ""
        text += SECTION.format(names=names, table=table(report["judged"]), **report)
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(read()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
