"""The attributes that all objects of one prediction share: who made them, their series, and the nodules' names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification
from pydicom.uid import generate_uid

from nodule_diag.dicom_objects import codes
from nodule_diag.results import Diagnosis, Prediction

MANUFACTURER = "nodule-diag"
ALGORITHM = "nodule-diag synergic model"
CREATOR = "nodule-diag^"
"""A person's name needs its ``^`` (PS3.5 6.2.1.1)."""
FIRST_SERIES = 9100
"""Series numbers of the objects start here: far from those of scanners."""
LONG_STRING = 64
"""Characters of a DICOM LO (PS3.5 6.2)."""


@dataclass(frozen=True)
class Maker:
    """Attributes that the objects share.

    Attributes:
        prediction: The prediction that the objects are made from.
        series_uid: The CT's SeriesInstanceUID.
        run: Distinguishes this run's series from those of other runs.
    """

    prediction: Prediction
    series_uid: str
    run: str = field(default_factory=lambda: str(generate_uid(prefix=None)))

    def instance(self, series: int, number: int = 1) -> dict[str, Any]:
        """Identity and equipment of one object, as highdicom's constructors take them.

        Args:
            series: Which series of the objects, from 0.
            number: Which object of the series, from 1.
        """
        return {
            "series_instance_uid": self.uid(f"series {series}"),
            "series_number": FIRST_SERIES + series,
            "sop_instance_uid": generate_uid(prefix=None),
            "instance_number": number,
            "manufacturer": MANUFACTURER,
        }

    def equipment(self) -> dict[str, Any]:
        """Further attributes of segmentations and maps."""
        return {
            "manufacturer_model_name": long_string(self.prediction.bundle.label),
            "software_versions": long_string(self.prediction.runtime.sdk_version),
            "device_serial_number": long_string(self.prediction.bundle.sha256),
        }

    @property
    def parameters(self) -> dict[str, str]:
        """What the answers depend on."""
        runtime = self.prediction.runtime
        prevalence = 0.5 if self.prediction.prevalence is None else self.prediction.prevalence
        cases = self.prediction.cases
        chosen = {} if cases.where is None else {"cases_where": cases.where}
        return {
            "model_sha256": self.prediction.bundle.sha256,
            "case_base_sha256": cases.sha256,
            **chosen,
            "backend": runtime.label,
            "views": str(runtime.symmetries),
            "prevalence": f"{prevalence:g}",
            "calibrated": "yes" if any(one.calibrated for one in self.prediction.diagnoses) else "no",
        }

    @property
    def version(self) -> str:
        """The versions of SDK and model."""
        return long_string(f"{self.prediction.runtime.sdk_version}, {self.prediction.bundle.label}")

    def algorithm(self) -> AlgorithmIdentificationSequence:
        """The algorithm, for images."""
        return AlgorithmIdentificationSequence(
            name=ALGORITHM,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=self.version,
            source=MANUFACTURER,
            parameters=self.parameters,
        )

    def algorithm_in_report(self) -> AlgorithmIdentification:
        """The algorithm, for the structured report."""
        return AlgorithmIdentification(
            name=ALGORITHM,
            version=self.version,
            parameters=[f"{name}={value}" for name, value in self.parameters.items()],
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MANUFACTURER,
        )

    def tracking_uid(self, diagnosis: Diagnosis) -> str:
        """A UID that is the same for the same position in the same CT, in every run."""
        return self.uid(f"nodule at {diagnosis.xyz_lps_mm}", lasting=True)

    def tracking_id(self, diagnosis: Diagnosis) -> str:
        """The nodule's name."""
        name = "".join(c if c.isprintable() and c != "\\" else "_" for c in diagnosis.id)
        return long_string(f"Nodule {name}")

    def uid(self, what: str, *, lasting: bool = False) -> str:
        """A UID that is the same for the same ``what`` in this run; with ``lasting``, in every run."""
        run = [] if lasting else [self.run]
        return str(generate_uid(entropy_srcs=[self.series_uid, what, *run]))


def long_string(text: str) -> str:
    """As much of a text as an LO can hold, whether a reader counts characters, as the standard does, or bytes."""
    return text.encode()[:LONG_STRING].decode(errors="ignore")
