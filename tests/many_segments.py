"""Segments 20 nodules on 400 slices of 512 x 512 with 1 GiB of memory, and tells how many frames they take."""

from __future__ import annotations

import resource
from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import Dataset

import ct_files as make
from made_diagnosis import ball, made_diagnosis, made_prediction
from nodule_diag.dicom_objects.maker import Maker
from nodule_diag.dicom_objects.segmentation import segmentation
from nodule_diag.dicom_objects.source import EMPTY_WHERE_UNKNOWN, Source, frames_in
from nodule_diag.results.segmentation import Segmentation

SLICES, NODULES, ALLOWED_BYTES = 400, 20, 2**30


def headers() -> list[Dataset]:
    (template,) = make.dicom_slices(np.zeros((1, 8, 8), np.int16), spacing=(0.7, 0.7, 0.7))
    del template.PixelData
    template.Rows = template.Columns = 512
    for keyword in EMPTY_WHERE_UNKNOWN:
        setattr(template, keyword, template.get(keyword, ""))
    made = []
    for number in range(SLICES):
        header = deepcopy(template)
        header.SOPInstanceUID, header.ImagePositionPatient = f"1.2.3.{number + 1}", [0.0, 0.0, 0.7 * number]
        made.append(header)
    return made


def main() -> None:
    slices = headers()
    frames = [frame for header in slices for frame in frames_in(header)]
    diagnoses = []
    for number, where in enumerate(np.random.default_rng(0).uniform(30, 250, (NODULES, 3)).tolist()):
        mask = Segmentation(ball(10.0), tuple(where), np.eye(3))
        diagnoses.append(made_diagnosis(id=str(number), xyz_lps_mm=tuple(where), segmentation=mask))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ALLOWED_BYTES, resource.RLIM_INFINITY))
    made = segmentation(Source(slices, frames), diagnoses, by=Maker(made_prediction(*diagnoses), "1.2.3"))
    print(len(made.SegmentSequence), made.NumberOfFrames)


if __name__ == "__main__":
    main()
