"""Every input that must be refused, with the code it must be refused with: for the SDK's and the CLI's tests alike.

``CASES`` are files that `read_ct` refuses, a module a format; ``POINTS`` are points that the geometry refuses
in the CT of `point_ct`, ``POSITIONS`` files of points that are refused for it, ``MANIFESTS`` those of a batch.
"""

from bad_inputs import archives, dicom, metaimage, nifti, nrrd, paths, pixels, voxels  # noqa: F401  each registers its cases
from bad_inputs.case import CASES as CASES
from bad_inputs.case import BadInput as BadInput
from bad_inputs.manifests import MANIFESTS as MANIFESTS
from bad_inputs.points import POINTS as POINTS
from bad_inputs.points import BadPoint as BadPoint
from bad_inputs.points import point_ct as point_ct
from bad_inputs.positions import POSITIONS as POSITIONS
from bad_inputs.positions import BadPositions as BadPositions
