"""Gives an existing bundle another case base: a hospital's own diagnosed nodules, or LIDC's again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from nodule_diag.bundle import MANIFEST_NAME, MODEL_CARD_NAME, Bundle, write_bundle
from nodule_diag.cases import Case, CaseTable, build_index, parse_cases
from nodule_diag.errors import UsageError

from .index import CaseCounts

NOTICE = "\n## Case base of this copy\n\n"
"""Opens what a replaced case base appends to the model card."""


def read_cases(path: Path) -> CaseTable:
    """Read cases in the format of a bundle's ``cases.json``, or ``cases.npz`` where the name ends so.

    Their features come from ``nodule-diag predict --json``.

    Raises:
        UsageError: If the file cannot be read.
        BundleError: If its cases are not valid.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint="name a cases.json") from error
    return parse_cases(text, name=path.name)


def replace_case_base(
    bundle: Bundle,
    cases: Sequence[Case],
    *,
    out: Path,
    source: str,
    k: int | None = None,
    exact_up_to: int | None = None,
) -> Bundle:
    """Write a copy of a bundle with other cases. Model, preprocessing and threshold stay.

    Args:
        bundle: The bundle to copy.
        cases: The new cases.
        out: A directory, or a ``.zip``.
        source: Where the cases come from, in words, for the model card.
        k: Cases that make a diagnosis; the bundle's own when left out.
        exact_up_to: Cases up to which every one is compared; the bundle's own when left out.

    Returns:
        The copy as it was read back.

    Raises:
        BundleError: If there are no cases, or two have one id.
        OutputError: If it cannot be written.
    """
    old = bundle.manifest
    table = CaseTable.of(cases)
    built = build_index(
        table,
        k=old.retrieval.k if k is None else k,
        exact_up_to=old.retrieval.exact_up_to if exact_up_to is None else exact_up_to,
    )
    dropped = {MANIFEST_NAME, old.retrieval.cases, *(spec.file for spec in old.retrieval.spaces.values())}
    files = {**{name: bundle.read(name) for name in old.files if name not in dropped}, **built.files}
    counts = CaseCounts.of(table)
    card = files[MODEL_CARD_NAME].decode(errors="replace").split(NOTICE)[0]
    notice = (
        f"{counts.cases} nodules of {counts.patients} patients, {counts.malignant} malignant "
        f"(base rate {counts.base_rate:.2f}), from {source}. What is said above of the case base is of the original.\n"
    )
    files[MODEL_CARD_NAME] = (card + NOTICE + notice).encode()
    case_base: dict[str, JsonValue] = {"cases": counts.cases, "malignant": counts.malignant, "source": source}
    training = {**old.training, "case_base": case_base}
    # How many similar cases a backend has in common with the reference was measured on the cases that are gone.
    changes = {"retrieval": built.retrieval, "training": training, "parity": ()}
    return write_bundle(out, manifest=old.model_copy(update=changes), files=files)
