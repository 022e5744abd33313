"""TensorRT engines, built ahead of time.

Doors: ``export_engine``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
