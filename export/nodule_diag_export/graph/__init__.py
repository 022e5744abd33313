"""The network as one ONNX graph that also emits its CAM, in fp32 and in reduced precisions.

Doors: ``ExportGraph``, ``OUTPUTS``, the writers of the files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
