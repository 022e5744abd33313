"""What every model card of this package says: method, excluded uses, limits, attribution."""

from __future__ import annotations

METHOD = """\
The synergic model (system {system}) of Zhang et al., "Faithful learning with sure data for lung nodule diagnosis"
(2022): a 3-D ResNet shared by SegNet (where the nodule is), RNet (the readers' malignancy score) and CNet (malignant
or benign). System J adds a loss that keeps CNet's class activation map (CAM) on the nodule.

Input: two HU windows of a 32 mm cube of the CT, 64x64x64 voxels of 0.5 mm, centred on the nodule. Output: malignancy P,
its logit, expert score 1 to 5, segmentation and CAM, both on a 16x16x16 grid of 2 mm cells. The nodule is where the
segmentation, interpolated, reaches {threshold:g}. The logit is the mean of the CAM: nothing but the map decides. The
SDK's diagnosis comes from comparing a nodule with the case base below."""

PRESENCE = """
  Presence says how likely there is one; read it first."""

FORBIDDEN = """\
- **Not a medical device.** No authority has cleared it and no prospective study has tested it.
- **Not for decisions on a patient**: not on screening, follow-up, biopsy, surgery or their omission, neither alone nor
  as a second reader. A low malignancy is no reason to reassure anybody.
- **Not a detector**: it answers for the position it is given, and gives numbers where there is none, too.{presence}
- **Not outside its data**: chest CT of adults, slices of at most 3 mm, nodules of 3 to 30 mm. Nothing is claimed for
  part-solid and ground-glass nodules, children, contrast phases or scanners beyond what the tables below measure.
- **Not a probability of cancer** of the person scanned: see the base rate under "Case base"."""

LIMITS = """\
- **Few labels.** {cases} diagnosed nodules of {patients} patients, {malignant} malignant.{taken_over} The intervals are
  wide, and a difference within them means nothing.
- **Selection.** These are nodules that somebody worried about enough to follow or to biopsy. The share of malignant
  ones among them, {base_rate:.2f}, is not that of screening.
- **Size.** On the 2 mm grid a nodule under 8 mm is a handful of cells: its segmentation and its diameter are rough.
- **Readers' scores are opinions.** Where the readers disagree, so does any model taught by them.
- **The cases of the case base were trained on.** The network is surer of them than of a new nodule, so a new nodule's
  distances to them are not those among themselves. The figures above, of patients that the judging model never saw,
  do not share this."""

TAKEN_OVER = (
    " Only {certain} of them ({certain_malignant} malignant)\n"
    "  carry a diagnosis of the nodule itself; the others take over that of their patient, whose diagnoses all agree."
)

CUT_BOXES = """\
- **Surroundings.** Most training nodules came as tightly cut boxes, which were laid onto the lung tissue of other
  patients; only a minority have their own surroundings."""

OF_EVERYBODY = """\
This model was made from all patients, so none is left to judge it. The figures are of {models} models of its recipe:
each judged the patients of one fold, on whom it was not trained."""

OPINION = """\
- **P is partly the readers' opinion.** CNet also learned from undiagnosed nodules, from the side of 3 that the readers'
  mean score is on; the table of diagnosed nodules above says what P is worth against diagnoses."""

LUNG = """\
The tables below are of lung without a nodule, of patients whose lung the judging model was not trained on, beside the
nodules above that have their real surroundings. Presence is how likely SegNet's map is that of a nodule; the warning's
threshold is what 99 % of these nodules reach. What is found is cut at one half."""

CALIBRATED = """\
**P is calibrated** on the diagnosed nodules of the evaluation and on nothing else. LIDC-IDRI's are of few patients,
most of whom were ill, and what holds for them need not hold for yours. `malignancy` is P after it; the logit, the
similar cases and the CAM are the network's own. Below, benign and malignant weigh the same: as if half of all nodules
were malignant."""

DISTANCE = """\
`feature_distance` says how far what the network sees is from what it was trained on: Mahalanobis' distance of its 256
features along a few principal components, and the rest. 99 % of nodules of unseen patients stay below 1; what is above
is warned of."""

SPREAD = """\
`malignancy_spread` is the standard deviation of P over turned views of a patch. The table says how it goes with
errors."""

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
"What it was trained on" names the stores. Which collections their CTs are of, and how those are to be named, is known
to whoever made them. No image is part of this bundle."""

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
