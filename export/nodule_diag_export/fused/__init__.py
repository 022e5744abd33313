"""One graph from HU to the answer, for programs without an SDK: windows and spline are in it.

Doors: ``export_fused``, ``fuse_model``, ``open_source``, ``Source``, ``HuType``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
