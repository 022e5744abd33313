"""A DICOM series from a folder or an archive: headers, the chain of rules, and the voxels in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import nan
from pathlib import Path

from nodule_diag.ct.dicom import rules, stack
from nodule_diag.ct.dicom.files import DicomFile, MemoryFile, files_in, members_of
from nodule_diag.ct.dicom.headers import SliceHeader, slice_headers
from nodule_diag.ct.dicom.pixels import hounsfield
from nodule_diag.ct.dicom_source import DicomSource, SetAside, SliceIdentity
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import in_order, quiet_pydicom, resolve_threads

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
    return read_dicom_files(files, source=str(path), series=series, threads=threads)


def read_dicom_files(
    files: Sequence[DicomFile | MemoryFile], *, source: str, series: str | None = None, threads: int | None = None
) -> CTVolume:
    """Read a series from files that were found elsewhere.

    Args:
        files: In any order.
        source: Where they are from, for messages.
        series: As :func:`read`.
        threads: Likewise; ``OMP_NUM_THREADS`` or every available core when left out.

    Raises:
        CTError: As :func:`read`.
    """
    threads = resolve_threads(threads)
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
        with in_order(partial(hounsfield, source=source), chosen.slices, threads=workers) as decoded:
            for number, hu in enumerate(decoded):
                voxels.add(number, hu[None])
    return CTVolume.from_voxels(voxels, dicom=_source_of(chosen))


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
