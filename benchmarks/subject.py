"""The CT that is measured on, and the bundle: every part starts from these."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import ONCE, Plan
from nodule_diag.bundle import Bundle
from nodule_diag.ct import CTVolume, Phantom, chest_phantom
from nodule_diag.errors import UsageError
from nodule_diag_cli.demo import write_ct

Point = tuple[float, float, float]

DATA_VARIABLE = "NODULE_DIAG_DATA"
LIDC_CT = Path("ct", "LIDC-IDRI-0314.nii.gz")
LIDC_XYZ_MM = (-56.94, 131.27, -520.6)
"""The CT's nodule, LPS mm."""
LIDC_NODULE_MASK = Path("ct", "LIDC-IDRI-0314_nodule_mask.nii.gz")
QUICK_SPACING_ZYX_MM = (5.0, 3.0, 3.0)
QUICK_SCALE = 0.5
"""Scale of the quick chest: what is resampled to 0.5 mm as a whole is then an eighth of the work."""
QUICK_SLICES = 8
"""Slices that are kept on either side of the nodule: 42 mm, which hold the 32 mm cube."""
QUICK = replace(ONCE, window=2)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line asks for.

    Attributes:
        ct: A CT; None takes LIDC-IDRI-0314 if ``NODULE_DIAG_DATA`` has it, else the phantom.
        xyz_mm: A nodule in this CT, LPS mm.
        bundle: A bundle; None takes the packaged one.
        checkpoint: ``model.safetensors`` for the peers in torch; None takes the weights out of the bundle's graph.
        networks: More ONNX files with the bundle's inputs and outputs, for parts that run the network alone.
        most_cases: Size of the largest case base.
        threads: Threads for every runtime.
        quick: Tiny sizes and two calls: this shows that a part works, and measures nothing.
    """

    ct: Path | None = None
    xyz_mm: Point | None = None
    bundle: Path | None = None
    checkpoint: Path | None = None
    networks: tuple[Path, ...] = ()
    most_cases: int = 1_000_000
    threads: int = 1
    quick: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A CT on disk.

    Attributes:
        path: The file.
        name: Name in results: no path.
        xyz_mm: The nodule, LPS mm.
        nodule_mask: Annotated voxels of the nodule, NIfTI on the CT's grid.
    """

    path: Path
    name: str
    xyz_mm: Point
    nodule_mask: Path | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """The inputs of a part.

    Attributes:
        settings: The settings.
        subject: The CT.
        bundle: The model.
        folder: Folder for temporary files.
    """

    settings: Settings
    subject: Subject
    bundle: Bundle
    folder: Path

    def plan(self, plan: Plan) -> Plan:
        """The plan, or the shortest one if the run is quick."""
        return QUICK if self.settings.quick else plan

    @property
    def options(self) -> str:
        """The options that give this subject again, without private folders."""
        words = []
        if self.settings.ct is not None:
            words += ["--ct", self.settings.ct.name, "--xyz", *(f"{value:g}" for value in self.subject.xyz_mm)]
        for name in ("bundle", "checkpoint"):
            given: Path | None = getattr(self.settings, name)
            words += [f"--{name}", given.name] if given is not None else []
        for path in self.settings.networks:
            words += ["--network", path.name]
        if self.settings.most_cases != Settings.most_cases:
            words += ["--most-cases", str(self.settings.most_cases)]
        words += ["--threads", str(self.settings.threads)]
        return " ".join(words + ["--quick"] * self.settings.quick)


@contextmanager
def opened(settings: Settings) -> Iterator[Bench]:
    """Prepare the subject and the bundle.

    Raises:
        UsageError: For ``--ct`` without ``--xyz``, or the other way round.
        BundleError: If the bundle is refused.
    """
    with tempfile.TemporaryDirectory(prefix="nodule-diag-bench-") as name:
        folder = Path(name)
        bundle = Bundle.default() if settings.bundle is None else Bundle.open(settings.bundle)
        yield Bench(settings=settings, subject=_subject(settings, folder), bundle=bundle, folder=folder)


def _subject(settings: Settings, folder: Path) -> Subject:
    if (settings.ct is None) != (settings.xyz_mm is None):
        raise UsageError("--ct and --xyz go together", hint="give both, or neither for the default CT")
    if settings.ct is not None and settings.xyz_mm is not None:
        return Subject(path=settings.ct, name=settings.ct.name, xyz_mm=settings.xyz_mm)
    data = os.environ.get(DATA_VARIABLE)
    if data and not settings.quick and Path(data, LIDC_CT).is_file():
        mask = Path(data, LIDC_NODULE_MASK)
        return Subject(
            path=Path(data, LIDC_CT),
            name=LIDC_CT.name,
            xyz_mm=LIDC_XYZ_MM,
            nodule_mask=mask if mask.is_file() else None,
        )
    phantom = small_chest() if settings.quick else chest_phantom()
    path = write_ct(folder / "phantom.nii.gz", phantom.ct)
    return Subject(path=path, name="phantom", xyz_mm=phantom.nodules[0].center_xyz_mm)


def small_chest() -> Phantom:
    """A few slices of a chest of half the size, round its first nodule."""
    phantom = chest_phantom(spacing_zyx_mm=QUICK_SPACING_ZYX_MM)
    nodule, ct = phantom.nodules[0], phantom.ct
    x, y, z = nodule.center_xyz_mm
    middle = round((z - ct.origin_xyz_mm[2]) / QUICK_SPACING_ZYX_MM[0])
    part = slice(middle - QUICK_SLICES, middle + QUICK_SLICES + 1)
    left, back, bottom = ct.origin_xyz_mm
    spacing_z, spacing_y, spacing_x = (QUICK_SCALE * spacing for spacing in ct.spacing_zyx_mm)
    small = CTVolume.from_array(
        ct.hu[part],
        spacing_zyx_mm=(spacing_z, spacing_y, spacing_x),
        origin_xyz_mm=(left * QUICK_SCALE, back * QUICK_SCALE, bottom * QUICK_SCALE + part.start * spacing_z),
        path="<small phantom>",
    )
    center = (x * QUICK_SCALE, y * QUICK_SCALE, z * QUICK_SCALE)
    return Phantom(
        ct=small,
        nodules=(replace(nodule, center_xyz_mm=center, diameter_mm=nodule.diameter_mm * QUICK_SCALE),),
        lungs=phantom.lungs[part],
    )
