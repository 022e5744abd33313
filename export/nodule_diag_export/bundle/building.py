"""A checkpoint and its evaluation become a bundle: network, golden answers, case base, model card, manifest."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nodule_diag.bundle import MODEL_CARD_NAME, Bundle, Manifest, ModelSpec, Preprocessing, RetrievalSpec, write_bundle
from nodule_diag.cases import DEFAULT_K, CaseBase
from nodule_diag.process import LOG, resolve_threads
from nodule_diag_export.bundle.network import (
    DEFAULT_IDENTITY,
    INTENDED_USE,
    LICENSE,
    ExportedModel,
    Identity,
    export_model,
)
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity import (
    ONE_SIDED,
    OnnxModel,
    add_golden,
    cube_patches,
    diagnosed_nodules,
    diagnosed_patches,
)
from nodule_diag_export.winograd import add_winograd
from nodule_diag_training.data import TrainingData

from .index import cases_of
from .model_card import CardFacts, CaseCounts, render
from .numbers import NumberFiles, Numbers, read_numbers
from .results import Results, read_results

LIDC_CASES = "LIDC-IDRI with TCIA's diagnoses"
"""The name of the case base of the LIDC data folder."""


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """The bundle's name, and how its case base is searched.

    Attributes:
        identity: Name, version and licence.
        masked_input: Whether the model was trained on CT times lung mask (paper 4.2, step 8).
        k: Cases that make a diagnosis.
        threads: CPU threads for ONNX Runtime; 0 leaves it to the runtime.
    """

    identity: Identity = DEFAULT_IDENTITY
    masked_input: bool = False
    k: int = DEFAULT_K
    threads: int = 0


def export_bundle(
    checkpoint: Path,
    *,
    results: Path,
    out: Path,
    data: TrainingData,
    numbers: NumberFiles | None = None,
    options: BundleOptions | None = None,
) -> Bundle:
    """Make the bundle of a finished model; the diagnosed nodules become its case base.

    Args:
        checkpoint: ``model.safetensors`` of a finished run.
        results: What ``nodule-diag train evaluate`` wrote.
        out: A directory, or a ``.zip``.
        data: The nodules.
        numbers: The reports on the numbers that the bundle makes of the network's answers.
        options: Name, version, preprocessing and retrieval.

    Returns:
        The bundle as it was read back.

    Raises:
        ExportError: If the results or the checkpoint cannot be used.
        ParityError: If the ONNX file's answers differ from the model's.
        TrainingDataError: If voxels are missing or damaged.
        BundleError: If the result would be no valid bundle.
        OutputError: If it cannot be written.
    """
    settings = BundleOptions() if options is None else options
    evaluation, made_of_answers = read_results(results), read_numbers(numbers or NumberFiles(), checkpoint=checkpoint)
    compared = cube_patches(data)
    exported = export_model(checkpoint, identity=settings.identity, nodules=list(compared), threads=settings.threads)
    archive = " --zip" if out.suffix == ".zip" else ""
    license_ = "" if settings.identity.license == LICENSE else f" --license {shlex.quote(settings.identity.license)}"
    command = (
        f"nodule-diag export bundle {checkpoint.name} --results {results.name}"
        f"{made_of_answers.options} --out {out.name}{archive}"
        f"{''.join(f' --store {store.name}' for store in data.stores)}"
        f" --name {settings.identity.name} --version {settings.identity.version}{license_}"
        f" --k {settings.k}{' --masked-input' if settings.masked_input else ''}"
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = assemble(
            exported,
            data,
            evaluation=evaluation,
            numbers=made_of_answers,
            out=Path(folder) / "bundle",
            options=settings,
            command=command,
        )
        threads = resolve_threads(settings.threads or None)
        try:
            bundle = add_golden(bundle, out=Path(folder) / "golden", threads=threads)
        except ExportError as error:
            if error.code != ONE_SIDED:
                raise
            LOG.warning("the bundle is written without golden answers: %s", error)
        return add_winograd(bundle, patches=compared, out=out, threads=threads)[0]


def assemble(
    exported: ExportedModel,
    data: TrainingData,
    *,
    evaluation: Results,
    numbers: Numbers | None = None,
    out: Path,
    options: BundleOptions,
    command: str,
) -> Bundle:
    """Judge the case base with an exported network and write the bundle, whole or not at all.

    Raises:
        ExportError: If no nodule has a diagnosis.
        TrainingDataError: If voxels are missing or damaged.
        BundleError: If the result would be no valid bundle.
        OutputError: If it cannot be written.
    """
    told = Numbers() if numbers is None else numbers
    cases = cases_of(OnnxModel(exported.data, threads=options.threads), diagnosed_patches(data))
    model_sha256 = hashlib.sha256(exported.data).hexdigest()
    base = CaseBase.of(cases, name=data.name if data.stores else LIDC_CASES, model_sha256=model_sha256)
    created = _now().isoformat(timespec="seconds")
    retrieval = RetrievalSpec(k=options.k)
    model = ModelSpec(opset=exported.opset, outputs=exported.outputs)
    from_cubes = sum(nodule.is_cube or nodule.twin is not None for nodule, _ in diagnosed_nodules(data.nodules))
    card = render(
        CardFacts(
            identity=options.identity,
            created=created,
            results=evaluation,
            numbers=told.reports,
            counts=CaseCounts.of(base),
            from_cubes=from_cubes,
            k=options.k,
            parity=exported.parity,
            provenance=exported.provenance,
            model_sha256=model_sha256,
            command=command,
        )
    )
    manifest = Manifest(
        name=options.identity.name,
        version=options.identity.version,
        created=created,
        license=options.identity.license,
        intended_use=INTENDED_USE,
        preprocessing=Preprocessing(masked_input=options.masked_input),
        model=model,
        retrieval=retrieval,
        segmentation=evaluation.segmentation,
        presence=told.presence,
        calibration=told.calibration,
        feature_distance=told.feature_distance,
        spread=told.spread,
        training={
            **exported.provenance,
            "parity": exported.parity.to_dict(),
            "case_base": {**_counts(base), "with_own_surroundings": from_cubes},
            "evaluation": {"command": evaluation.command, "config": evaluation.config},
            "command": command,
        },
    )
    files = {model.file: exported.data, MODEL_CARD_NAME: card.encode(), retrieval.cases: base.to_bytes(), **told.files}
    return write_bundle(out, manifest=manifest, files=files)


def _counts(base: CaseBase) -> dict[str, int]:
    counts = CaseCounts.of(base)
    return {
        "cases": counts.cases,
        "malignant": counts.malignant,
        "patients": counts.patients,
        "diagnosed_themselves": counts.certain,
        "diagnosed_themselves_malignant": counts.certain_malignant,
    }


def _now() -> datetime:
    """Now; or the time in SOURCE_DATE_EPOCH (seconds since 1970), with which an export gives the same bundle again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ExportError(f"SOURCE_DATE_EPOCH is {epoch!r}", hint="give seconds since 1970, or unset it") from error
