"""The paper's section 4.2 to the letter: mask and resample the whole CT, then run PyTorch eager.

The filters are SimpleITK's, on all threads (``reference``); only what the paper leaves open is taken from the SDK. The
mask is always computed, and applied to the patch where the bundle was trained so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from benchmarks.peers.answer import Answer, TorchTail
from benchmarks.subject import Subject
from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing import reference_lung_mask, reference_patch


@dataclass(frozen=True, eq=False)
class PaperLiteral:
    """From file to answer as the paper writes it down."""

    subject: Subject
    tail: TorchTail
    masked_input: bool
    name: str = "paper-literal"

    def __call__(self) -> Answer:
        """Read, mask, resample, cut out, run, compare."""
        image = sitk.ReadImage(str(self.subject.path))
        ct = CTVolume.from_array(
            sitk.GetArrayViewFromImage(image),
            spacing_zyx_mm=image.GetSpacing()[::-1],
            origin_xyz_mm=image.GetOrigin(),
            direction=np.array(image.GetDirection()).reshape(3, 3),
        )
        lungs = reference_lung_mask(ct)
        patch = reference_patch(ct, self.subject.xyz_mm, lung_mask=lungs if self.masked_input else None)
        x, y, z = np.rint(index_from_lps(ct, np.array([self.subject.xyz_mm]))[0]).astype(int)
        return self.tail.answer(patch, in_lung=bool(lungs[z, y, x]), lungs=lungs)
