"""A DICOM series from a folder or an archive: headers, the chain of rules, and the voxels in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy.typing as npt

from nodule_diag.ct.dicom import rules, stack, volumes
from nodule_diag.ct.dicom.code_stream import SYNTAXES
from nodule_diag.ct.dicom.files import DicomFile, files_in, members_of
from nodule_diag.ct.dicom.frames import FRAME_SEPARATOR, frames_of
from nodule_diag.ct.dicom.headers import SliceHeader, image_headers
from nodule_diag.ct.dicom.pixels import Pixels, decoders, hounsfield, syntax_name
from nodule_diag.ct.dicom.placement import placement_of
from nodule_diag.ct.dicom.resampling import resampled
from nodule_diag.ct.dicom.rescale import in_one_unit
from nodule_diag.ct.dicom_source import DicomSource, SetAside, SliceIdentity
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import in_order, quiet_pydicom, resolve_threads

RULES: tuple[rules.Rule, ...] = (
    rules.the_series_asked_for,
    rules.slices_of_a_ct,
    volumes.one_series,
    rules.placed_in_the_patient,
    rules.whole,
    rules.no_copies,
    volumes.one_volume,
    rules.of_one_patient,
    stack.several_slices,
    stack.of_one_kind,
    stack.right_angled,
    stack.in_order_of_height,
    stack.one_at_a_place,
)
"""The order matters: each rule relies on the rules before it."""


def read(path: Path, *, series: str | None, acquisition: int | None, threads: int) -> CTVolume:
    """Read a series from a folder, searched with all folders in it, or from a ``.zip``.

    Args:
        path: The folder or archive.
        series: SeriesInstanceUID; needed when there are several.
        acquisition: Which volume of the series; needed when there are several.
        threads: How many threads may work at once.

    Raises:
        CTError: When there is no such series, or it is not a CT that can be used for a diagnosis.
    """
    files = files_in(path) if path.is_dir() else members_of(path)
    return read_dicom_files(files, source=str(path), series=series, acquisition=acquisition, threads=threads)


def read_dicom_files(
    files: Sequence[DicomFile],
    *,
    source: str,
    series: str | None = None,
    acquisition: int | None = None,
    threads: int | None = None,
) -> CTVolume:
    """Read a series from files that were found elsewhere.

    Args:
        files: The files, in any order.
        source: Where the files are from, for messages.
        series: As :func:`read`.
        acquisition: As :func:`read`.
        threads: As :func:`read`; ``OMP_NUM_THREADS`` or every available core when left out.

    Raises:
        CTError: As :func:`read`.
    """
    threads = resolve_threads(threads)
    workers = threads - 1  # the caller's thread waits for the others, or checks and copies what they have decoded
    with quiet_pydicom():
        chosen = _images(files, source, threads=workers)
        chosen.wanted, chosen.acquisition = series, acquisition
        for rule in RULES:
            rule(chosen)
        _verify_the_others(files, chosen)
        placement = placement_of(chosen)
        voxels = HounsfieldArray(placement.grid, path=source)
        if workers and chosen.slices[0].transfer_syntax in SYNTAXES:
            workers = threads  # they wait for decoders, which are other processes
        with (
            decoders(threads, slices=len(chosen.slices)) as children,
            in_order(partial(hounsfield, source=source, decoders=children), chosen.slices, threads=workers) as decoded,
        ):
            planes = in_one_unit(chosen, _telling_of_loss(chosen, decoded))
            for number, hu in enumerate(resampled(placement, planes) if placement.resampled else planes):
                voxels.add(number, hu[None])
    return CTVolume.from_voxels(
        voxels,
        dicom=_source_of(chosen, resampled=placement.resampled),
        warnings=chosen.told(),
        gaps=placement.gaps,
    )


def _verify_the_others(files: Sequence[DicomFile], series: rules.Series) -> None:
    """Verify the checksum of every unused member of an archive: the member may be a slice that was damaged.

    Raises:
        CTError: ``ct-damaged``.
    """
    used = {header.file.name.partition(FRAME_SEPARATOR)[0] for header in series.slices}
    for file in files:
        if file.member is not None and file.name not in used:
            file.part(0, 0)


def _telling_of_loss(series: rules.Series, decoded: Iterator[Pixels]) -> Iterator[npt.NDArray[Any]]:
    """Pass slices on, with one warning where any was ever compressed with loss."""
    told = False
    for header, pixels in zip(series.slices, decoded, strict=True):
        if (header.lossy or pixels.lossy) and not told:
            ratio = f", ratio {header.lossy_ratio:.3g}:1" if isfinite(header.lossy_ratio) else ""
            series.warnings.append(
                f"the voxels were compressed with loss (stored as {syntax_name(header.transfer_syntax)}{ratio}): fine"
                " structures may be missing, and the network was trained on scans without"
            )
            told = True
        yield pixels.hu


def _images(files: Sequence[DicomFile], source: str, *, threads: int) -> rules.Series:
    """All images of all files; other files are set aside."""
    found = list(zip(files, image_headers(files, source=source, threads=threads, frames=frames_of), strict=True))
    images = rules.Series(source=source, slices=[])
    for file, headers in found:
        if isinstance(headers, str):
            images.set_aside.append(SetAside(file.name, headers))
        else:
            images.slices += headers
    if not images.slices:
        raise CTError(
            f"{source} holds no DICOM images (files looked at: {len(files)})",
            code="ct-no-dicom",
            hint="give the folder with the slices of the CT, or a .zip of it, or a NIfTI file by its own name",
        )
    return images


def _source_of(series: rules.Series, *, resampled: bool) -> DicomSource:
    first = series.slices[0]
    return DicomSource(
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        slices=tuple(map(_identity, series.slices)),
        set_aside=tuple(series.set_aside),
        resampled=resampled,
    )


def _identity(header: SliceHeader) -> SliceIdentity:
    x, y, z = header.position_mm or (nan, nan, nan)
    return SliceIdentity(header.sop_uid, header.sop_class, (x, y, z), header.file.name, header.frame)
