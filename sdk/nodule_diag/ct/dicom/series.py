"""A DICOM series from a folder or archive: which series, is it a CT, and its voxels in order."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodule_diag.ct.dicom.files import DicomFile, SliceHeader, files_in, gdcm_reader, slice_headers
from nodule_diag.ct.dicom.stack import stack
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import in_order, quiet

_GRAYSCALE = ("MONOCHROME2", "")


def read_folder(folder: Path, *, series: str | None, threads: int) -> CTVolume:
    """Read a series from the files under a folder.

    Args:
        folder: Searched with all folders in it.
        series: SeriesInstanceUID; needed when there are several.
        threads: How many may work at once.

    Raises:
        CTError: When there is no such series, or it is no CT that can be diagnosed from.
    """
    return read_files(files_in(folder), source=str(folder), series=series, threads=threads)


def read_files(files: list[DicomFile], *, source: str, series: str | None, threads: int) -> CTVolume:
    """Read a series from some files.

    Args:
        files: DICOM slices of any number of series, and anything else.
        source: The folder or archive, for messages and the result.
        series: SeriesInstanceUID; needed when there are several.
        threads: How many may work at once.

    Raises:
        CTError: As `read_folder`.
    """
    with quiet():
        headers = slice_headers(files, source=source, threads=threads)
        if not headers:
            raise CTError(
                f"{source} holds no DICOM images (files looked at: {len(files)})",
                code="ct-no-dicom",
                hint="give the folder with the slices of the CT, or a .zip of it, or a NIfTI file by its own name",
            )
        chosen = _choose(headers, series, source)
        _check_kind(chosen, source)
        ordered, grid = stack(chosen, source=source)
        canonical = grid.canonical()
        voxels = HounsfieldArray(canonical, path=source)
        # Another thread decodes; this one checks and copies what has been decoded.
        with in_order(partial(_decode, source=source), ordered, threads=min(threads - 1, 1)) as images:
            for number, (header, image) in enumerate(zip(ordered, images, strict=True)):
                # The view is valid as long as ``image`` lives; add() copies it. GDCM has applied slope and intercept.
                pixels = sitk.GetArrayViewFromImage(image).reshape(1, header.rows, header.columns)
                voxels.add(number, pixels)
    return CTVolume.from_grid(
        voxels.finish(), canonical, path=source, series_uid=chosen[0].series_uid or None, warnings=grid.warnings()
    )


def _decode(header: SliceHeader, *, source: str) -> sitk.Image:
    try:
        with gdcm_reader(header.file.path) as reader:
            image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise CTError(
            f"{source}: {header.file.name} cannot be decoded: its pixel data is damaged or of an unknown kind",
            code="ct-damaged",
            hint="export the series again, uncompressed",
        ) from error
    return image


def _choose(headers: list[SliceHeader], series: str | None, source: str) -> list[SliceHeader]:
    """The slices of the series asked for, or of the only one."""
    by_uid: dict[str, list[SliceHeader]] = {}
    for header in headers:
        by_uid.setdefault(header.series_uid, []).append(header)
    if series is not None and series not in by_uid:
        raise CTError(
            f"{source} holds no series {series!r}, only {_listing(by_uid)}",
            code="ct-unknown-series",
            hint="choose one of these with --series UID",
        )
    if series is None and len(by_uid) > 1:
        raise CTError(
            f"{source} holds {len(by_uid)} series: {_listing(by_uid)}",
            code="ct-several-series",
            hint="choose one with --series UID",
        )
    return by_uid[series] if series is not None else headers


def _listing(by_uid: dict[str, list[SliceHeader]]) -> str:
    """Each series with its UID, description, modality and size, by series number."""

    def number(item: tuple[str, list[SliceHeader]]) -> tuple[int, str]:
        text = item[1][0].series_number
        return (int(text) if text.isdigit() else 0, item[0])

    entries = []
    for uid, slices in sorted(by_uid.items(), key=number):
        first = slices[0]
        size = f"{first.columns} x {first.rows} x {sum(header.frames for header in slices)}"
        description = first.description or "no description"
        entries.append(f"{uid or 'no UID'} ({first.modality or 'no modality'}, {description!r}, {size})")
    return "; ".join(entries)


def _check_kind(slices: list[SliceHeader], source: str) -> None:
    """Refuse what is not a stack of classic CT images."""
    for header in slices:
        if header.modality != "CT":
            raise CTError(
                f"{source} is not a CT: {header.file.name} has modality {header.modality or 'not given'}",
                code="ct-not-ct",
                hint="give a chest CT",
            )
        if header.frames > 1:
            raise CTError(
                f"{source}: {header.file.name} is a multi-frame image of {header.frames} frames",
                code="ct-multi-frame",
                hint="convert the enhanced CT to classic single-frame DICOM or to NIfTI",
            )
        if header.photometric not in _GRAYSCALE:
            raise CTError(
                f"{source}: {header.file.name} is not a grey-scale CT image but {header.photometric}",
                code="ct-not-scalar",
                hint="give the CT itself, not a secondary capture or a colour overlay",
            )
        missing = [
            name
            for name, value in (
                ("ImagePositionPatient", header.position_mm),
                ("ImageOrientationPatient", header.orientation),
                ("PixelSpacing", header.pixel_spacing_mm),
            )
            if value is None or not np.isfinite(value).all()
        ]
        if missing:
            raise CTError(
                f"{source}: {header.file.name} has no usable {', '.join(missing)}",
                code="ct-no-orientation",
                hint="give the original series; a scout image or secondary capture is no volume",
            )
