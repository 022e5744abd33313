"""The named systems of the paper: which modules a model has and what guides its class activation map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nodule_diag_training.losses import CAM_LOSSES, CamLoss

NO_GUIDANCE = "none"

SystemName = Literal["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "R", "CSF", "CSF+ad-CSL", "D+ad-CSL"]


@dataclass(frozen=True, kw_only=True)
class System:
    """Which modules join the ResNet, and the guidance of the CAM.

    Attributes:
        segnet: S of Table 1.
        rnet: R of Table 1.
        fnet: F of Table 1; it fuses SegNet's map, so it needs SegNet.
        cnet: C of Table 1; only Table 6's regression structure ("R") has none.
        attention: Residual blocks with spatial attention (ARL, Zhang et al. 2019).
        guidance: What is asked of the CAM: ``none``, or one of ``losses.CAM_LOSSES``. It needs CNet, and SegNet where
            it compares the CAM with SegNet's map.
    """

    segnet: bool = False
    rnet: bool = False
    fnet: bool = False
    cnet: bool = True
    attention: bool = False
    guidance: str = NO_GUIDANCE

    def __post_init__(self) -> None:
        if self.fnet and not self.segnet:
            raise ValueError("FNet fuses SegNet's map: fnet=True needs segnet=True")
        if self.guidance not in (NO_GUIDANCE, *CAM_LOSSES):
            raise ValueError(f"guidance={self.guidance!r} is none of {', '.join((NO_GUIDANCE, *CAM_LOSSES))}")
        if self.compares_segmentation and not self.segnet:
            raise ValueError(f"guidance={self.guidance!r} compares the CAM with SegNet's map: it needs segnet=True")
        if self.cam_loss is not None and not self.cnet:
            raise ValueError(f"guidance={self.guidance!r} guides CNet's map: it needs cnet=True")
        if not (self.cnet or self.rnet):
            raise ValueError("a system needs CNet or RNet")

    @property
    def cam_loss(self) -> CamLoss | None:
        """The loss that ``guidance`` names."""
        return CAM_LOSSES.get(self.guidance)

    @property
    def compares_segmentation(self) -> bool:
        """Whether the CAM is compared with SegNet's map, by a margin."""
        return self.cam_loss is not None and self.cam_loss.compares == "segmentation"


SYSTEMS: dict[SystemName, System] = {
    "A": System(),
    "B": System(segnet=True),
    "C": System(rnet=True),
    "D": System(segnet=True, rnet=True),
    "E": System(segnet=True, rnet=True, attention=True),
    "F": System(segnet=True, rnet=True, fnet=True),
    "G": System(segnet=True, rnet=True, fnet=True, attention=True),
    "H": System(segnet=True, rnet=True, fnet=True, guidance="cam-loss"),
    "I": System(segnet=True, rnet=True, fnet=True, guidance="csl"),
    "J": System(segnet=True, rnet=True, fnet=True, guidance="ad-csl"),
    "R": System(rnet=True, cnet=False),
    "CSF": System(segnet=True, fnet=True),
    "CSF+ad-CSL": System(segnet=True, fnet=True, guidance="ad-csl"),
    "D+ad-CSL": System(segnet=True, rnet=True, guidance="ad-csl"),
}
"""A to J are Table 1's, with its parameter counts; R is Table 6's regression structure, CSF Table 7's rows without
RNet, D+ad-CSL Table 5's."""
