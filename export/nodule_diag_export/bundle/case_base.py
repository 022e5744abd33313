"""Gives an existing bundle another case base: a hospital's own diagnosed nodules, or its own cases in a newer form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import JsonValue, ValidationError

from nodule_diag.bundle import (
    FIRST_SCHEMA,
    MANIFEST_NAME,
    MODEL_CARD_NAME,
    SCHEMA_VERSION,
    Bundle,
    Manifest,
    list_files,
    read_bounded,
    write_bundle,
)
from nodule_diag.cases import CaseBase, read_case_table
from nodule_diag.errors import BundleError, UsageError

from .model_card import CaseCounts

NOTICE = "\n## Case base of this copy\n\n"
"""Heading of what a replaced case base appends to the model card."""


def open_any(path: Path) -> Bundle:
    """Open a bundle; a bundle of the first schema without its case base, which this version cannot search.

    Raises:
        BundleError: As :meth:`Bundle.open`.
    """
    try:
        return Bundle.open(path)
    except BundleError as error:
        readers = list_files(path)
        text = read_bounded(MANIFEST_NAME, readers[MANIFEST_NAME])
        if error.code != "bundle-schema-unknown" or json.loads(text)["schema_version"] != FIRST_SCHEMA:
            raise
    try:
        document = json.loads(text)
        retrieval = document["retrieval"]
        del document["threshold"]  # no code ever read it
        for name in (retrieval["cases"], *(space["file"] for space in retrieval["spaces"].values())):
            document["files"].pop(name, None)
        document |= {"schema_version": SCHEMA_VERSION, "retrieval": {"k": retrieval["k"]}}
        manifest = Manifest.model_validate_json(json.dumps(document))
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise BundleError(
            f"the bundle's {MANIFEST_NAME} is invalid: {error}", code="bundle-manifest-invalid"
        ) from error
    data = {name: read_bounded(name, readers[name]) for name in manifest.files if name in readers}
    for name, expected in manifest.files.items():
        if name not in data or hashlib.sha256(data[name]).hexdigest() != expected:
            raise BundleError(f"{name} in the bundle is missing, changed or damaged", code="bundle-hash-mismatch")
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), path, data)


def read_cases(path: Path, *, bundle: Bundle, name: str | None = None) -> CaseBase:
    """Open a case base, or make one of a table that has P and score of the bundle's model.

    Args:
        path: ``.sqlite``; or a CSV or JSON, as :func:`nodule_diag.cases.read_case_table` takes it.
        bundle: The bundle whose model gave the scores.
        name: Name of a new case base; the file's name when left out.

    Raises:
        UsageError: If the table cannot be used, or lacks P and score.
        CaseBaseError: If the case base cannot be used, or is of another model.
    """
    if path.suffix.lower() not in {".csv", ".json"}:
        return CaseBase.open(path).of_model(bundle)
    listed = read_case_table(path)
    if any(row.path is not None for row in listed):
        raise UsageError(f"{path} lacks P and score of some cases", hint="have them judged: nodule-diag cases build")
    return CaseBase.of((row.case for row in listed), name=name or path.stem, model_sha256=bundle.model_sha256)


def replace_case_base(bundle: Bundle, cases: CaseBase, *, out: Path, source: str, k: int | None = None) -> Bundle:
    """Write a copy of a bundle with another case base. Model and preprocessing stay.

    Args:
        bundle: The bundle to copy.
        cases: The new cases, with scores of the bundle's model.
        out: A directory, or a ``.zip``.
        source: Where the cases come from, in words, for the model card; empty when they are the bundle's own cases.
        k: Cases that make a diagnosis; the bundle's own when left out.

    Returns:
        The copy as it was read back.

    Raises:
        CaseBaseError: If the scores are of another model.
        OutputError: If it cannot be written.
    """
    old, base = bundle.manifest, cases.of_model(bundle)
    changes: dict[str, object] = {"retrieval": old.retrieval.model_copy(update={} if k is None else {"k": k})}
    files = dict(bundle.files)
    files[old.retrieval.cases] = base.to_bytes()
    if source:
        counts = CaseCounts.of(base)
        card = files[MODEL_CARD_NAME].decode(errors="replace").split(NOTICE)[0]
        notice = (
            f"{counts.cases} nodules of {counts.patients} patients, {counts.malignant} malignant "
            f"(base rate {counts.base_rate:.2f}), from {source}. "
            "What is said above of the case base is of the original.\n"
        )
        files[MODEL_CARD_NAME] = (card + NOTICE + notice).encode()
        case_base: dict[str, JsonValue] = {"cases": counts.cases, "malignant": counts.malignant, "source": source}
        # The retrieved cases that a backend shares with the reference were measured on the old case base.
        changes |= {"training": {**old.training, "case_base": case_base}, "parity": ()}
    return write_bundle(out, manifest=old.model_copy(update=changes), files=files)
