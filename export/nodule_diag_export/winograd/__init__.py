"""The same network with fewer products: Winograd's minimal filtering, written as plain ONNX operators.

Doors: ``add_winograd``, ``winograd_graph``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
