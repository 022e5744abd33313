"""``bench dicom``: a DICOM series as a folder and as a zip, compared with SimpleITK's series reader."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.child import run_module
from benchmarks.measure import Call, Plan, Timing, in_turns
from benchmarks.part_growth import IN_PLANE_MM, stretched
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import DATA_VARIABLE, Bench, small_chest
from benchmarks.threads import limited
from nodule_diag.ct import HEIGHT_MM, CTVolume, chest_phantom, read_ct
from nodule_diag.errors import NoduleDiagError

TITLE = "Reading DICOM"
PLAN = Plan(warmup=1, window=2, agreeing=3, spread=0.1, budget_s=12.0)
LIDC_ZIP = Path("ct", "LIDC-IDRI-0001_dicom.zip")
SLICES, MADE_SLICES = 332, 100
"""Slices of the phantom series, interpolated along z from fewer: a phantom slice takes longer to make than to read."""
LEAST_FOLDER, LEAST_ZIP = 1.3, 1.5
MOST_OVER_VOLUME_MIB = 95.0
"""100 MB beyond the volume itself."""
PADDING_FLOOR_HU = -1024


class ReadersDifferError(NoduleDiagError, RuntimeError):
    """Two readers gave different voxels: their times say nothing."""

    code = "bench-readers-differ"


def run(bench: Bench) -> Findings:
    """Read both series, warm: each reader in turns with its peer."""
    rows: list[tuple[Cell, ...]] = []
    checks: list[Check] = []
    kept: list[Timing] = []
    with limited(bench.settings.threads):
        for name, folder in _series(bench):
            timings, memory = _measured(bench, folder)
            for form, least in (("folder", LEAST_FOLDER), ("zip", LEAST_ZIP)):
                ours, peer = timings[f"read_ct, {form}"], timings[f"SimpleITK, {form}"]
                ratio = ours.times_as_fast_as(peer)
                rows.append((f"{name}, {form}", ours.p50_ms, peer.p50_ms, ratio, memory[form]))
                checks.append(
                    Check(name=f"{name}, {form}: times SimpleITK's speed", value=ratio, rule="at least", limit=least)
                )
                if (over := memory[form]) is not None:
                    checks.append(
                        Check(
                            name=f"{name}, {form}: peak memory beyond the volume",
                            value=over,
                            rule="at most",
                            limit=MOST_OVER_VOLUME_MIB,
                            unit="MiB",
                        )
                    )
            kept += [replace(timing, name=f"{name}: {key}") for key, timing in timings.items()]
    notes = () if _real() or bench.settings.quick else (f"{LIDC_ZIP.stem} was not read: {DATA_VARIABLE} has none.",)
    return Findings(
        title=TITLE,
        subject="DICOM series",
        tables=(_table(rows, bench.settings.threads),),
        checks=tuple(checks),
        timings=tuple(kept),
        notes=notes,
    )


def _real() -> Path | None:
    """The real series, where there is one."""
    data = os.environ.get(DATA_VARIABLE)
    return Path(data, LIDC_ZIP) if data and Path(data, LIDC_ZIP).is_file() else None


def _series(bench: Bench) -> Iterator[tuple[str, Path]]:
    """Names and folders, one at a time."""
    real = None if bench.settings.quick else _real()
    if real is not None:
        folder = bench.folder / "real"
        with zipfile.ZipFile(real) as archive:
            archive.extractall(folder)
        yield "LIDC-IDRI-0001", next(path for path in folder.iterdir() if path.is_dir())
    if bench.settings.quick:
        ct = small_chest().ct
    else:
        spacing = (HEIGHT_MM / MADE_SLICES, IN_PLANE_MM, IN_PLANE_MM)
        ct = stretched(chest_phantom(spacing_zyx_mm=spacing).ct, SLICES)
    folder = bench.folder / "phantom"
    write_series(folder, ct)
    yield f"phantom of {len(ct.hu)} slices", folder


def write_series(folder: Path, ct: CTVolume) -> None:
    """Write a volume as a classic CT series, explicit little endian, with an intercept as scanners have it."""
    folder.mkdir()
    spacing_z, spacing_y, spacing_x = ct.spacing_zyx_mm
    x, y, z = ct.origin_xyz_mm
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for number, plane in enumerate(ct.hu):
        item = Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = CTImageStorage
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = study, series, frame
        item.Modality, item.PatientID, item.InstanceNumber = "CT", "phantom", number + 1
        item.ImagePositionPatient = [round(value, 6) for value in (x, y, z + number * spacing_z)]
        item.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        item.PixelSpacing = [round(spacing_y, 6), round(spacing_x, 6)]
        item.SliceThickness = round(spacing_z, 6)
        item.Rows, item.Columns = plane.shape
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        item.RescaleIntercept, item.RescaleSlope = PADDING_FLOOR_HU, 1
        item.PixelData = (plane - np.int16(PADDING_FLOOR_HU)).astype("<i2").tobytes()
        item.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)


def _measured(bench: Bench, folder: Path) -> tuple[dict[str, Timing], dict[str, float | None]]:
    """Times of all four, and the memory of ours in processes of their own."""
    threads = bench.settings.threads
    archive, unpacked = bench.folder / f"{folder.name}.zip", bench.folder / "unpacked" / folder.name
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, path.name)
    ours = read_ct(folder, threads=threads)
    for other in (peer_folder(folder), peer_archive(archive, unpacked)):
        if not np.array_equal(ours.hu, np.maximum(sitk.GetArrayViewFromImage(other), PADDING_FLOOR_HU)):
            raise ReadersDifferError(f"SimpleITK and read_ct differ on {folder.name}", hint="find out which is wrong")
    del ours, other
    calls: dict[str, Call] = {
        "read_ct, folder": partial(read_ct, folder, threads=threads),
        "SimpleITK, folder": partial(peer_folder, folder),
        "read_ct, zip": partial(read_ct, archive, threads=threads),
        "SimpleITK, zip": partial(peer_archive, archive, unpacked),
    }
    timings = in_turns(calls, plan=bench.plan(PLAN))
    said = {
        form: run_module(["benchmarks.reading_memory", str(path), str(threads)], threads=threads).stdout
        for form, path in (("folder", folder), ("zip", archive))
    }
    return timings, {form: float(text) if text else None for form, text in said.items()}


def peer_folder(folder: Path) -> sitk.Image:
    """SimpleITK's series reader with its own search for the files of the series."""
    reader = sitk.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image: sitk.Image = reader.Execute()
    return image


def peer_archive(archive: Path, unpacked: Path) -> sitk.Image:
    """The same after zipfile has unpacked; removing the unpacked files is not timed."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(unpacked)
    return peer_folder(unpacked)


def _table(rows: list[tuple[Cell, ...]], threads: int) -> Table:
    columns = {
        "series": "series",
        "ours": "read_ct ms",
        "peer": "SimpleITK ms",
        "ratio": "times as fast",
        "over": "peak memory beyond the volume, MiB",
    }
    return Table(
        name="dicom",
        title="Uncompressed series, warm",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple(rows),
        note=(
            f"Medians; {threads} threads. SimpleITK searches the folder for the series itself, as read_ct does;"
            " of a zip it reads what zipfile unpacked. Voxels are the same. Memory is read_ct's, in a fresh process."
        ),
        plot=Plot(kind="bars", x="series", y=("ratio",), y_label="times as fast as SimpleITK"),
    )
