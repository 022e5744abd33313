"""The codes that the objects use: standard codes where they exist, and a few of our own."""

from __future__ import annotations

from pydicom.sr.coding import Code

NODULE = Code("27925004", "SCT", "Nodule")
LUNG = Code("39607008", "SCT", "Lung")
ABNORMALITY = Code("49755003", "SCT", "Morphologically abnormal structure")
CT_CHEST = Code("169069000", "SCT", "CT of chest")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
EXPERT_SCORE = Code("RID36042", "RADLEX", "Malignancy")
DIAMETER = Code("81827009", "SCT", "Diameter")
VOLUME = Code("118565006", "SCT", "Volume")
CLASS_ACTIVATION = Code("130402", "DCM", "Class activation")
COMMENT = Code("121106", "DCM", "Comment")

OURS = "99NODULEDIAG"
"""Designator of our own codes."""
CAM_NODULE = Code("CAMNDL", OURS, "Mean class activation over the nodule")
CAM_BACKGROUND = Code("CAMBKG", OURS, "Mean class activation over the background")
MALIGNANT_SHARE = Code("SIMMAL", OURS, "Share of malignant cases among similar ones")
BALANCED_SHARE = Code("SIMBAL", OURS, "Balanced share of malignant cases among similar ones")
PRESENCE = Code("PRESENCE", OURS, "Probability that there is a nodule")
FEATURE_DISTANCE = Code("FEATDIST", OURS, "Distance of the features from those of training")
BASE_RATE = Code("BASERATE", OURS, "Share of malignant cases in the case base")

PERCENT = Code("%", "UCUM", "Percent")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
NO_UNIT = Code("1", "UCUM", "no units")
SCORE = Code("{score}", "UCUM", "score")
