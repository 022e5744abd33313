"""nodule-diag itself: ``read_ct`` and ``Diagnoser.predict``."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.answer import Answer
from benchmarks.subject import Subject
from nodule_diag.ct import read_ct
from nodule_diag.diagnoser import Diagnoser


@dataclass(frozen=True, eq=False)
class Own:
    """From file to answer by the SDK."""

    subject: Subject
    diagnoser: Diagnoser
    name: str = "nodule-diag"

    def __call__(self) -> Answer:
        """Read and diagnose."""
        (found,) = self.diagnoser.predict(read_ct(self.subject.path), [self.subject.xyz_mm])
        return Answer(
            malignancy=found.malignancy,
            expert_score=found.expert_score,
            diagnosis=found.diagnosis["machine+expert"],
            in_lung=bool(found.in_lung),
            cam=found.cam.values,
            segmentation=found.segmentation.values,
        )
