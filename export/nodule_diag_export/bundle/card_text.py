"""What every model card of this package says: method, excluded uses, limits, attribution."""

from __future__ import annotations

METHOD = """\
The synergic model (system {system}) of Zhang et al., "Faithful learning with sure data for lung nodule diagnosis"
(2022): a 3-D ResNet shared by SegNet (segments the nodule), RNet (predicts the readers' malignancy score) and CNet
(predicts malignant or benign). System J adds a loss that keeps CNet's class activation map (CAM) on the nodule.

Input: two HU windows of a 32 mm cube of the CT, 64x64x64 voxels of 0.5 mm, centred on the nodule. Output: malignancy P,
its logit, expert score 1 to 5, segmentation and CAM, both on a 16x16x16 grid of 2 mm cells. The nodule is where the
interpolated segmentation reaches {threshold:g}. The logit is the mean of the CAM, so the map alone decides. The SDK's
diagnosis comes from comparing a nodule with the case base below."""

PRESENCE = """
  Presence says how likely it is that there is a nodule; read presence first."""

FORBIDDEN = """\
- **Not a medical device.** No authority has cleared it and no prospective study has tested it.
- **Not for decisions on a patient**: not on screening, follow-up, biopsy, surgery or their omission, neither alone nor
  as a second reader. A low malignancy is no reason to reassure anybody.
- **Not a detector**: the model answers for any position, even if there is no nodule.{presence}
- **Not outside its data**: chest CT of adults, slices of at most 3 mm, nodules of 3 to 30 mm. Beyond the
  tables below, nothing is known for part-solid and ground-glass nodules, children, contrast phases or scanners.
- **Not a probability of cancer** of the person scanned: see the base rate under "Case base"."""

LIMITS = """\
- **Few labels.** {cases} diagnosed nodules of {patients} patients, {malignant} malignant.{taken_over} The intervals are
  wide, and a difference within an interval means nothing.
- **Selection.** The diagnosed nodules were suspicious enough to be followed or biopsied. The share of malignant nodules
  among them is {base_rate:.2f}; in screening the share is different.
- **Size.** On the 2 mm grid a nodule under 8 mm covers a handful of cells: its segmentation and its diameter are rough.
- **Readers' scores are opinions.** Readers disagree, and a model that learns from readers inherits the disagreement.
- **The model was trained on the cases of the case base.** The network is surer of these cases than of a new nodule. So
  distances between a new nodule and the cases differ from distances among the cases. The figures above do not have
  this bias: they are for patients that the judging model never saw."""

TAKEN_OVER = (
    " Only {certain} of them ({certain_malignant} malignant)\n"
    "  have a diagnosis of the nodule itself. The others have their patient's diagnosis, where all of them agree."
)

CUT_BOXES = """\
- **Surroundings.** Most training nodules came as tightly cropped boxes, which were laid onto the lung tissue of other
  patients. Only a minority have their own surroundings."""

OF_EVERYBODY = """\
This model was trained on all patients, so no patient is left to evaluate it. The figures come from {models} models of
the same recipe. Each was evaluated on the patients of one fold, on whom it was not trained."""

OPINION = """\
- **P is partly the readers' opinion.** CNet also learned from undiagnosed nodules: malignant if the readers' mean score
  is above 3, benign if below. The table of diagnosed nodules above compares P with diagnoses."""

LUNG = """\
The tables below compare lung without a nodule with the nodules above in their real surroundings. The judging model was
not trained on the lung of these patients. Presence is the probability that SegNet's map is that of a nodule. 99 % of
these nodules reach the threshold of the warning. Segmentations in these tables use the threshold 0.5."""

CALIBRATED = """\
**P is calibrated** on the diagnosed nodules of the evaluation and on nothing else. LIDC-IDRI has few diagnosed
patients, and most of them were ill, so the calibration may not hold for your patients. `malignancy` is P after
calibration. The logit, the similar cases and the CAM are not calibrated. In the table, benign and malignant nodules
have equal weight, as if half of all nodules were malignant."""

DISTANCE = """\
`feature_distance` measures how unlike the training patches a patch is: the Mahalanobis distance of the network's 256
features along a few principal components, and of the rest. 99 % of nodules of unseen patients are below 1. A value
above 1 gives a warning."""

SPREAD = """\
`malignancy_spread` is the standard deviation of P over rotated and flipped views of a patch. The table relates this
spread to errors."""

NUMBERS = {"lung": LUNG, "calibration": CALIBRATED, "distance": DISTANCE, "spread": SPREAD}
"""The text before the tables of each number that the bundle makes of the answers."""

LIDC_FOLDER = """\
Nodules of LIDC-IDRI with the readers' masks and malignancy scores (unsure data) and, for some, a diagnosis published by
TCIA (sure data)."""

KINDS = {
    "lidc": "nodules of LIDC-IDRI with the readers' masks and malignancy scores (unsure data)",
    "shared": "nodules of LIDC-IDRI with the readers' masks and malignancy scores, some with TCIA's diagnosis",
    "sure": "diagnosed nodules of CTs that its maker listed (sure data)",
    "luna25": "nodules of LUNA25, in low-dose CTs of the National Lung Screening Trial, with its diagnoses (sure data)",
}
"""The contents of a store of ``train prepare``, by its kind."""
LIDC_KINDS = ("lidc", "shared")

OWN_DATA = """\
"What it was trained on" names the stores. Whoever made a store knows the collections of its CTs and how to cite them.
No image is part of this bundle."""

ATTRIBUTION = """\
Trained on data of the LIDC-IDRI collection of The Cancer Imaging Archive, licence
[CC BY 3.0](https://creativecommons.org/licenses/by/3.0/); no image of it is part of this bundle.

- Armato SG III, McLennan G, Bidaut L, et al. The Lung Image Database Consortium (LIDC) and Image Database Resource
  Initiative (IDRI): a completed reference database of lung nodules on CT scans. Medical Physics 38(2), 915-931, 2011.
  <https://doi.org/10.1118/1.3528204>
- Armato SG III, McLennan G, Bidaut L, et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015.
  <https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX> (with its table of diagnoses)
- Clark K, Vendt B, Smith K, et al. The Cancer Imaging Archive (TCIA): maintaining and operating a public information
  repository. Journal of Digital Imaging 26(6), 1045-1057, 2013. <https://doi.org/10.1007/s10278-013-9622-7>

The authors acknowledge the National Cancer Institute and the Foundation for the National Institutes of Health, and
their critical role in the creation of the free publicly available LIDC/IDRI database used in this study."""
