"""What a store of LUNA25 is filled from: its CTs, or the blocks that were cut out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing import PATCH_SIZE, PATCH_SPACING_MM
from nodule_diag_training.data.case import Case
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.luna25_blocks import IMAGE, METADATA, USE_CTS, read_block
from nodule_diag_training.data.prepare.luna25_table import Luna25Row
from nodule_diag_training.data.prepare.prepare import Extract, Source
from nodule_diag_training.data.prepare.sources import DiagnosedSource, cut_at_center
from nodule_diag_training.data.regions import Region

CT_SUFFIX: Final = ".mha"
METHOD: Final = "LUNA25's label"
"""The method of diagnosis, for a case base: the table says no more."""
GIVE_IMAGES: Final = "give the folder of <SeriesInstanceUID>.mha, or the one that holds image/ and metadata/"


@dataclass(frozen=True, kw_only=True)
class BlockSource:
    """A block round one nodule.

    Attributes:
        folder: Folder of all blocks.
        case: The nodule.
    """

    folder: Path
    case: Case

    @property
    def name(self) -> str:
        """The name of the block's image file."""
        return str(self._image)

    @property
    def cases(self) -> Sequence[Case]:
        """The one nodule."""
        return (self.case,)

    @property
    def _image(self) -> Path:
        return self.folder / IMAGE / f"{self.case.case_id}.npy"

    @property
    def _metadata(self) -> Path:
        return self.folder / METADATA / f"{self.case.case_id}.npy"

    def files(self) -> Iterable[Path]:
        """Image and metadata.

        Raises:
            TrainingDataError: If one is missing.
        """
        for file in (self._image, self._metadata):
            if not file.is_file():
                raise TrainingDataError(f"{file} does not exist", hint="download all parts of the blocks")
        return (self._image, self._metadata)

    def open(self) -> Extract:
        """Read the block."""
        ct = read_block(self._image, self._metadata)
        extract = cut_at_center(ct)

        def whole(case: Case) -> tuple[Case, Region]:
            complete, region = extract(case)
            _require_cube(ct, case)
            return complete, region

        return whole


def _require_cube(ct: CTVolume, case: Case) -> None:
    """Refuse a block that ends inside the network's cube: the CT continues there, but the block is black.

    Raises:
        TrainingDataError: If the block ends there.
    """
    if case.center_xyz_mm is None:
        return
    half = (PATCH_SIZE - 1) / 2 * PATCH_SPACING_MM
    index_zyx = index_from_lps(ct, [list(case.center_xyz_mm)])[0][::-1]
    reach = np.minimum(index_zyx, np.asarray(ct.hu.shape) - 1 - index_zyx) * ct.spacing_zyx_mm
    if reach.min() < half:
        raise TrainingDataError(
            f"the block ends {reach.min():.1f} mm from the nodule, and the network's cube {half:g} mm from it",
            hint=USE_CTS,
        )


def luna25_sources(rows: Sequence[Luna25Row], images: Path) -> list[Source]:
    """One source for each CT, or for each block where the folder holds blocks.

    Args:
        rows: Rows of the table.
        images: The folder of CTs, ``<SeriesInstanceUID>.mha``, or that of the blocks.

    Raises:
        TrainingDataError: If the folder holds neither CTs nor blocks, or none that the table names.
    """
    blocks = (images / IMAGE).is_dir() and (images / METADATA).is_dir()
    wanted = images / IMAGE if blocks else images
    ending = ".npy" if blocks else CT_SUFFIX
    there = {file.name for file in wanted.iterdir()} if wanted.is_dir() else set()
    files = {f"{row.annotation if blocks else row.series_uid}{ending}" for row in rows}
    if not files & there:
        raise TrainingDataError(f"{wanted} holds none of the {len(files)} files that the table names", hint=GIVE_IMAGES)
    if blocks:
        return [BlockSource(folder=images, case=_case(row, wanted / f"{row.annotation}{ending}")) for row in rows]
    by_series: dict[str, list[Case]] = {}
    for row in rows:
        by_series.setdefault(row.series_uid, []).append(_case(row, images / f"{row.series_uid}{ending}"))
    return [
        DiagnosedSource(path=images / f"{series}{ending}", cases=tuple(cases)) for series, cases in by_series.items()
    ]


def _case(row: Luna25Row, source: Path) -> Case:
    return Case(
        case_id=row.annotation,
        patient_id=row.patient,
        kind="luna25",
        source=str(source),
        center_xyz_mm=row.center_xyz_mm,
        diameter_mm=None,
        malignant=row.malignant,
        method=METHOD,
        mask_known=False,
    )
