"""Diagnose the nodules of one CT, print what is known of each, and write overlays for a viewer.

python examples/diagnose.py scan.nii.gz -56.94 131.27 -520.6      a CT and a position, LPS millimetres
python examples/diagnose.py                                       a phantom: works offline, without data
"""

import sys
from pathlib import Path

import nodule_diag as nd
from nodule_diag.ct import chest_phantom

if len(sys.argv) > 1:
    ct = nd.read_ct(sys.argv[1])
    points = [tuple(float(number) for number in sys.argv[2:5])]
else:
    phantom = chest_phantom()
    ct, points = phantom.ct, [nodule.center_xyz_mm for nodule in phantom.nodules]

diagnoser = nd.Diagnoser.load()
out = Path("overlays")
out.mkdir(exist_ok=True)
for diagnosis in diagnoser.predict(ct, points):
    print(f"nodule {diagnosis.id}: P {diagnosis.malignancy:.2f}, expert score {diagnosis.expert_score:.1f} of 5")
    print(f"  {diagnosis.segmentation.diameter_mm:.1f} mm; the CAM stays on it by {diagnosis.faithfulness.margin:+.2f}")
    share, base_rate = diagnosis.diagnosis["machine+expert"], diagnosis.base_rate
    print(f"  malignant: {share:.2f} of the {diagnosis.k} most similar cases, {base_rate:.2f} of all")
    nd.write_cam(out / f"cam_{diagnosis.id}.nii.gz", ct, diagnosis.cam)
    nd.write_segmentation(out / f"segmentation_{diagnosis.id}.nii.gz", ct, diagnosis.segmentation)
