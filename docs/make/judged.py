"""The page ``docs/judged.md`` and its picture, made from what ``nodule-diag train evaluate`` found.

``python docs/make/judged.py`` writes both from ``results/gpu_day/evaluation.json.xz``, and a test says when the page is
out of date. The failures are listed from the report's judgements: ids and figures, no voxel of a CT.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from nodule_diag_export.bundle.card_tables import section_table
from nodule_diag_export.bundle.results import Section

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "results" / "gpu_day" / "evaluation.json.xz"
PAGE = ROOT / "docs" / "judged.md"
PICTURE = ROOT / "docs" / "plots" / "calibration.svg"
TARGETS, GROUPS, CUT, CURVE = "Targets", "By size, solidity and slices", "Where SegNet's map is cut", "Reliability of P"
FAR_OFF_MM = 3.0
COLOURS = ("#0072b2", "#d55e00")
BEFORE, AFTER = "before calibration", "after"

INTRODUCTION = """# How good it is

Three models of [the GPU day](gpu-day.md) were each trained without a third of LIDC-IDRI's patients. Each judged the
patients that it had not seen: {vois} VOIs, {cubes} nodules in their real surroundings (cubes), {diagnosed} nodules with
a diagnosis. A model of all patients, which is trained by the same recipe, cannot be judged like this.

`docs/make/judged.py` makes this page from `{report}`. These commands made that file:

```
{command}
```

`--again` makes all tables anew from the judgements in a report, in two minutes and without a network. Intervals
hold 95 % of 2,000 draws of patients. `train lung` judges the targets of presence: the
[GPU day](gpu-day.md#what-it-reached) has these figures. The model card has every table.
"""
CURVES = """![Share of malignant nodules against P, before and after calibration](plots/calibration.svg)

*On the line, P equals the share of malignant nodules. Bars are 95 % intervals.*
"""
FAILURES = """## Failures

Every nodule whose CAM lies off the nodule (a margin below 0), or whose diameter is off by more than {far:.0f} mm: {cam}
and {mm} of the {vois} VOIs, {cube_cam} and {cube_mm} of the {cubes} cubes. A nodule may be listed as VOI and as cube.
*Texture* (5 solid, 1 ground glass) and *readers* are the readers' means, *found* is SegNet's diameter, *score* RNet's.

| nodule | patient | diameter, mm | texture | found, mm | CAM margin | P | score | readers | what |
|---|---|---|---|---|---|---|---|---|---|
"""


def cut(one: Mapping[str, Any], thresholds: Mapping[str, float]) -> Mapping[str, Any]:
    """A judgement with Dice and diameter of the threshold that the other folds chose."""
    wanted = thresholds.get(str(one["fold"]))
    return {**one, **next((cut for cut in one.get("cuts", ()) if cut["threshold"] == wanted), {})}


def failures(judgements: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], bool, bool]]:
    """Judgements with a CAM off the nodule or a diameter far off, and which of the two it is; the largest first."""
    found = []
    for one in judgements:
        if one["form"] == "cube-cut" or one["diameter_error_mm"] is None:
            continue
        off_nodule = one["cam_nodule"] < one["cam_background"]
        far_off = abs(one["diameter_error_mm"]) > FAR_OFF_MM
        if off_nodule or far_off:
            found.append((one, off_nodule, far_off))
    return sorted(found, key=lambda entry: (entry[0]["form"], -entry[0]["diameter_mm"]))


def page(report: Mapping[str, Any]) -> str:
    """The page."""
    judged = [cut(one, report["thresholds"]) for one in report["judgements"]]
    sections = [Section.model_validate(section) for section in report["sections"]]
    listed = failures(judged)

    def count(form: str) -> int:
        return sum(one["form"] == form for one in judged)

    def failing(form: str, which: int) -> int:
        return sum(entry[0]["form"] == form and bool(entry[which]) for entry in listed)

    parts = [
        INTRODUCTION.format(
            vois=count("voi"), cubes=count("cube"), diagnosed=len(report["diagnosed"]), command=report["command"],
            report=REPORT.relative_to(ROOT),
        )
    ]  # fmt: skip
    for start in (TARGETS, GROUPS, CUT, CURVE):
        parts += [section_table(one, level=2) + "\n" for one in sections if one.title.startswith(start)]
    parts.append(CURVES)
    text = FAILURES.format(
        far=FAR_OFF_MM, cam=failing("voi", 1), mm=failing("voi", 2), cube_cam=failing("cube", 1),
        cube_mm=failing("cube", 2), vois=count("voi"), cubes=count("cube"),
    )  # fmt: skip
    parts.append(text + "".join(map(_line, listed)))
    return "\n".join(parts)


def _line(entry: tuple[Mapping[str, Any], bool, bool]) -> str:
    one, off_nodule, far_off = entry
    cells = [
        f"`{one['case_id']}`",
        one["patient_id"],
        f"{one['diameter_mm']:.1f}",
        "" if one["texture"] is None else f"{one['texture']:.1f}",
        f"{one['diameter_mm'] + one['diameter_error_mm']:.1f}",
        f"{one['cam_nodule'] - one['cam_background']:.2f}",
        f"{one['malignancy']:.2f}",
        f"{one['expert_score']:.1f}",
        f"{one['reader_score']:.1f} of {len(one['reader_scores'])}",
        " and ".join(["CAM"] * off_nodule + ["diameter"] * far_off),
    ]
    return f"| {' | '.join(cells)} |\n"


def curve(section: Section, when: str) -> tuple[list[float], list[float], list[list[float]]]:
    """Mean P, share of malignant nodules, and how far its interval reaches down and up, from the lowest fifth."""
    rows = {row.metric: [] for row in section.rows}  # type: dict[str, list[Any]]
    for row in section.rows:
        rows[row.metric].append(row)
    shares = rows[f"malignant, {when}"]
    reach = [[row.value - row.low for row in shares], [row.high - row.value for row in shares]]
    return [row.value for row in rows[f"mean P, {when}"]], [row.value for row in shares], reach


def draw(section: Section, path: Path) -> None:
    """The two curves."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"}):
        figure = Figure(figsize=(7.0, 3.9), layout="constrained")
        for axes, when, colour in zip(figure.subplots(1, 2, sharey=True), (BEFORE, AFTER), COLOURS, strict=True):
            p, share, reach = curve(section, when)
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
            axes.errorbar(p, share, yerr=reach, color=colour, marker="o", markersize=4, capsize=2, linewidth=1.2)
            title = "before calibration" if when == BEFORE else "after, out of fold"
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="mean P of a fifth")
            axes.set_title(title, loc="left", fontsize=10)
        figure.axes[0].set_ylabel("share of malignant nodules")
        figure.savefig(path, metadata={"Date": None})


def read() -> dict[str, Any]:
    """The committed report."""
    found: dict[str, Any] = json.loads(lzma.decompress(REPORT.read_bytes()))
    return found


def main() -> None:
    """Write page and picture."""
    report = read()
    PAGE.write_text(page(report), encoding="utf-8")
    (section,) = [s for s in report["sections"] if s["title"].startswith(CURVE)]
    draw(Section.model_validate(section), PICTURE)
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
