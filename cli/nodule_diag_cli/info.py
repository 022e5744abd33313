"""``nodule-diag info``: what a bundle is, where it comes from and what it is for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nodule_diag_cli import render
from nodule_diag_cli.options import BundleOption, JsonOption
from nodule_diag_cli.out import document_text

if TYPE_CHECKING:
    from nodule_diag.bundle import Bundle

SCHEMA = "nodule-diag/info/1"


def info(bundle: BundleOption = None, as_json: JsonOption = False) -> None:
    """Describe the bundle: name, version, hashes, provenance, intended use."""
    from nodule_diag.bundle import Bundle

    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    document = describe(opened)
    if as_json:
        sys.stdout.write(document_text(document))
    else:
        _render(document)


def describe(bundle: Bundle) -> dict[str, Any]:
    """The document of ``info --json``: the manifest, the hash that identifies it, and the size of the case base."""
    from nodule_diag.cases import CaseBase

    base = CaseBase.of_bundle(bundle)
    return {
        "schema": SCHEMA,
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "cases": len(base),
        "malignant": base.malignant,
        "manifest": bundle.manifest.model_dump(mode="json"),
    }


def _render(document: dict[str, Any]) -> None:
    manifest = document["manifest"]
    to = render.console()
    preprocessing, retrieval = manifest["preprocessing"], manifest["retrieval"]
    cases = document["cases"]
    masked = "multiplied by the lung mask" if preprocessing["masked_input"] else "not masked"
    windows = ", ".join(f"{low:g}..{high:g}" for low, high in preprocessing["windows_hu"])
    render.facts(
        [
            ("Bundle", f"{manifest['name']} {manifest['version']}, made {manifest['created']}"),
            ("Path", document["path"]),
            ("sha256", document["sha256"]),
            ("Licence", manifest["license"]),
            ("Intended use", manifest["intended_use"]),
            ("Input", f"{preprocessing['patch_size']}-voxel cube of {preprocessing['spacing_mm']} mm, {masked}"),
            ("Windows", f"{windows} HU"),
            ("Model", f"{manifest['model']['file']}, ONNX opset {manifest['model']['opset']}"),
            (
                "Cases",
                f"{cases} diagnosed nodules, {document['malignant'] / cases:.0%} malignant; K = {retrieval['k']}",
            ),
        ],
        to=to,
    )
    if manifest["training"]:
        to.print("\nTraining", style="bold")
        render.facts(((f"  {name}", _flat(value)) for name, value in manifest["training"].items()), to=to)
    to.print()
    files = render.table("file", "sha256")
    for name, digest in manifest["files"].items():
        files.add_row(name, digest)
    to.print(files)


def _flat(value: object) -> str:
    """A JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)
