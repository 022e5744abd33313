"""Does the exported network answer as PyTorch does, and every backend as ONNX Runtime does?

An export that misses its gate is not written.
Doors: ``measure``, ``require``, ``OnnxModel``, the patches that are compared.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
