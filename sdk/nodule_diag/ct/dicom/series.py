"""A DICOM series from a folder or an archive: headers, the chain of rules, and the voxels in order."""

from __future__ import annotations

from functools import partial
from math import isfinite, nan
from pathlib import Path

from nodule_diag.ct.dicom import rules, stack
from nodule_diag.ct.dicom.code_stream import SYNTAXES
from nodule_diag.ct.dicom.files import files_in, members_of
from nodule_diag.ct.dicom.headers import SliceHeader, slice_headers
from nodule_diag.ct.dicom.pixels import decoders, hounsfield, syntax_name
from nodule_diag.ct.dicom_source import DicomSource, SetAside, SliceIdentity
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import in_order, quiet_pydicom

RULES: tuple[rules.Rule, ...] = (
    rules.one_series,
    rules.only_ct,
    rules.single_frames,
    rules.one_number_a_pixel,
    rules.placed_in_the_patient,
    stack.several_slices,
    stack.of_one_kind,
    rules.no_copies,
    stack.right_angled,
    stack.in_order_of_height,
    stack.one_at_a_place,
    stack.evenly_spaced,
    stack.over_each_other,
)
"""In this order, as each sees what it looks for only where those before it have passed."""


def read(path: Path, *, series: str | None, threads: int) -> CTVolume:
    """Read a series from a folder, searched with all folders in it, or from a ``.zip``.

    Args:
        path: The folder or archive.
        series: SeriesInstanceUID; needed when there are several.
        threads: How many may work at once.

    Raises:
        CTError: When there is no such series, or it is no CT that can be diagnosed from.
    """
    files = files_in(path) if path.is_dir() else members_of(path)
    source = str(path)
    workers = threads - 1  # the caller's thread waits for the others, or checks and copies what they have decoded
    with quiet_pydicom():
        headers = slice_headers(files, source=source, threads=workers)
        chosen = rules.Series(source=source, slices=[header for header in headers if header], wanted=series)
        pairs = zip(files, headers, strict=True)
        chosen.set_aside += [SetAside(file.name, "no image") for file, header in pairs if not header]
        if not chosen.slices:
            raise CTError(
                f"{source} holds no DICOM images (files looked at: {len(files)})",
                code="ct-no-dicom",
                hint="give the folder with the slices of the CT, or a .zip of it, or a NIfTI file by its own name",
            )
        for rule in RULES:
            rule(chosen)
        voxels = HounsfieldArray(stack.grid_of(chosen), path=source)
        lossy = None
        with decoders(threads, slices=len(chosen.slices)) as children:
            work = partial(hounsfield, source=source, decoders=children)
            compressed = any(header.transfer_syntax in SYNTAXES for header in chosen.slices)
            with in_order(work, chosen.slices, threads=threads if compressed and workers else workers) as decoded:
                for number, pixels in enumerate(decoded):
                    voxels.add(number, pixels.hu[None])
                    if lossy is None and (pixels.lossy or chosen.slices[number].lossy):
                        lossy = chosen.slices[number]
    return CTVolume.from_voxels(voxels, dicom=_source_of(chosen), warnings=_lost(lossy) if lossy else ())


def _lost(header: SliceHeader) -> tuple[str]:
    """What to say of a slice whose pixels were once compressed with loss."""
    ratio = f", ratio {header.lossy_ratio:.3g}:1" if isfinite(header.lossy_ratio) else ""
    return (
        f"the voxels were compressed with loss (stored as {syntax_name(header.transfer_syntax)}{ratio}): fine"
        " structures may be missing, and the network was trained on scans without",
    )


def _source_of(series: rules.Series) -> DicomSource:
    first = series.slices[0]
    return DicomSource(
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        slices=tuple(map(_identity, series.slices)),
        set_aside=tuple(series.set_aside),
    )


def _identity(header: SliceHeader) -> SliceIdentity:
    x, y, z = header.position_mm or (nan, nan, nan)
    return SliceIdentity(header.sop_uid, header.sop_class, (x, y, z), header.file.name)
