"""The names of the exported graph's tensors. Needs neither torch nor onnx."""

from __future__ import annotations

INPUT = "patch"
OUTPUTS = ("malignancy", "logit", "expert_score", "segmentation", "cam", "features")
RAW_CAM = "cam_raw"
"""The CAM of eq. 5, an output of the graph that :func:`.onnx_graph.trace` gives, but of no packaged file."""
