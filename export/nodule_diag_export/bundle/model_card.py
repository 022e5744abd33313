"""Renders MODEL_CARD.md: uses of the model, excluded uses, what it was trained on, and what it reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodule_diag.cases import CaseBase
from nodule_diag.results import Segmentation
from nodule_diag_export.bundle.network import INTENDED_USE, Identity
from nodule_diag_export.parity import LOGIT_TOLERANCE, TOLERANCE, Parity

from .card_history import of_cut_boxes, of_lidc, stages_of, table_cell, trained_on
from .card_tables import UNDEFINED, section_table
from .card_text import (
    ATTRIBUTION,
    CUT_BOXES,
    FORBIDDEN,
    LIMITS,
    METHOD,
    NUMBERS,
    OF_EVERYBODY,
    OPINION,
    OWN_DATA,
    PRESENCE,
    TAKEN_OVER,
)
from .results import Results


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """Counts of a case base; ``certain`` are the cases whose diagnosis is of the nodule and not of its patient."""

    cases: int
    malignant: int
    patients: int
    certain: int
    certain_malignant: int

    @classmethod
    def of(cls, base: CaseBase) -> CaseCounts:
        """Count them."""
        cases = list(base)
        certain = [case.label for case in cases if case.label_certainty == "nodule"]
        return cls(
            cases=len(cases),
            malignant=sum(case.label for case in cases),
            patients=len({case.patient_id for case in cases}),
            certain=len(certain),
            certain_malignant=sum(certain),
        )

    @property
    def base_rate(self) -> float:
        """Share of malignant cases."""
        return self.malignant / self.cases


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything in a card that is not the same for all models.

    Attributes:
        identity: Name, version and licence.
        created: Time of creation, ISO 8601.
        results: The evaluation.
        numbers: Reports on the numbers made of its answers: ``lung``, ``calibration``, ``distance``, ``spread``.
        counts: The case base.
        from_cubes: Cases that are seen with their own surroundings.
        k: Cases that make a diagnosis.
        parity: Difference of the ONNX file from the trained model.
        provenance: As in the manifest: checkpoint, configuration, data, libraries.
        model_sha256: SHA-256 of ``model.onnx``.
        command: The command that made the bundle.
    """

    identity: Identity
    created: str
    results: Results
    counts: CaseCounts
    from_cubes: int
    k: int
    parity: Parity
    provenance: Mapping[str, Any]
    model_sha256: str
    command: str
    numbers: Mapping[str, Results] = field(default_factory=dict)


def render(facts: CardFacts) -> str:
    """The card, in Markdown."""
    data = facts.provenance.get("data", {})
    parts = [
        f"# {facts.identity.name} {facts.identity.version}",
        f"{INTENDED_USE}\n\nLicence of the weights: {facts.identity.license}. Made {facts.created}.",
        f"## What it is\n\n{METHOD.format(system=_system(facts), threshold=_threshold(facts.results))}",
        f"## What it must not be used for\n\n{FORBIDDEN.format(presence=PRESENCE if 'lung' in facts.numbers else '')}",
        trained_on(data, facts.provenance.get("config", {})),
        _reaches(facts),
        _case_base(facts),
        f"## Limits\n\n{_limits(facts)}",
        _export(facts),
        f"## Attribution\n\n{ATTRIBUTION if of_lidc(data) else OWN_DATA}",
    ]
    return "\n\n".join(parts) + "\n"


def _system(facts: CardFacts) -> str:
    """Row of the paper's Table 1."""
    return str(facts.provenance.get("config", {}).get("system", "J"))


def _threshold(results: Results) -> float:
    """The threshold at which the SDK cuts SegNet's map with this bundle."""
    return Segmentation.threshold if results.segmentation is None else results.segmentation.threshold


def _limits(facts: CardFacts) -> str:
    counts = facts.counts
    certain = {"certain": counts.certain, "certain_malignant": counts.certain_malignant}
    text = LIMITS.format(
        cases=counts.cases,
        patients=counts.patients,
        malignant=counts.malignant,
        taken_over=TAKEN_OVER.format(**certain) if counts.certain < counts.cases else "",
        base_rate=counts.base_rate,
    )
    limits = [text]
    if of_cut_boxes(facts.provenance.get("data", {})):
        limits.append(CUT_BOXES)
    if facts.provenance.get("config", {}).get("scores_teach_cnet"):
        limits.append(OPINION)
    return "\n".join(limits)


def _reaches(facts: CardFacts) -> str:
    results = facts.results
    parts = [
        "## What it reaches",
        "All figures are for patients that the judging model was not trained on. Intervals are 95 %, over resampled "
        "patients. Compare each figure with its yardstick.",
    ]
    if results.folds is not None and len(results.folds.judged) < results.folds.of:
        judged, of = ", ".join(map(str, results.folds.judged)), results.folds.of
        parts.append(f"{len(results.folds.judged)} of the {of} folds of the patients were judged: {judged}.")
    if results.folds is not None and "fold" not in facts.provenance.get("data", {}):
        parts.append(OF_EVERYBODY.format(models=len(results.folds.judged)))
    parts += [section_table(section) for section in results.sections]
    trained = facts.provenance.get("config", {})
    changed = sorted(key for key in results.config.keys() & trained.keys() if results.config[key] != trained[key])
    if changed:
        listed = ", ".join(f"{key} {_setting(key, results.config)} (here {_setting(key, trained)})" for key in changed)
        parts.append(f"The judged models were trained with other settings than this model: {listed}.")
    took = "" if results.seconds is None else f" in {max(1, round(results.seconds / 60))} minutes"
    parts.append(f"Made{took} by:\n\n```\n{results.command}\n```")
    for name, report in facts.numbers.items():
        parts += [NUMBERS[name], *map(section_table, report.sections), f"Made by:\n\n```\n{report.command}\n```"]
    return "\n\n".join(parts)


def _setting(key: str, config: Mapping[str, Any]) -> str:
    return stages_of(config) if key == "stages" else table_cell(config[key])


def _case_base(facts: CardFacts) -> str:
    counts = facts.counts
    rate = f"{counts.base_rate:.2f}"
    return (
        "## Case base\n\n"
        f"{counts.cases} nodules of {counts.patients} patients with a diagnosis: {counts.malignant} malignant, "
        f"{counts.cases - counts.malignant} benign. {counts.certain} nodules are taken as diagnosed themselves, the "
        f"other {counts.cases - counts.certain} have their patient's diagnosis. {facts.from_cubes} have their own "
        "surroundings.\n\n"
        f"**Base rate: {rate}.** A diagnosis is the share of malignant cases among the {facts.k} nearest. Among random "
        f"cases this share would be {rate} too. Compare each diagnosis with {rate}."
    )


def _export(facts: CardFacts) -> str:
    parity = facts.parity
    worst = ", ".join(f"{name} {value:.1e}" for name, value in parity.difference.items())
    libraries = ", ".join(f"{name} {version}" for name, version in facts.provenance.get("libraries", {}).items())
    return (
        "## How it was made\n\n"
        f"```\n{facts.command}\n```\n\n"
        f"ONNX Runtime against torch on {parity.random_patches} synthetic patches and {parity.nodule_patches} of real "
        f"nodules. Largest difference (for maps, of a patch's mean): {worst}; logit against mean CAM "
        f"{parity.mean_cam:.1e} (allowed: {TOLERANCE:g}, logit {LOGIT_TOLERANCE:g}). No cell of a map differs by more "
        f"than {parity.largest_cell:.1e}.\n\n"
        f"- libraries: {libraries}\n"
        f"- sha256 of the checkpoint: `{facts.provenance.get('checkpoint_sha256', UNDEFINED)}`\n"
        f"- sha256 of model.onnx: `{facts.model_sha256}`"
    )
