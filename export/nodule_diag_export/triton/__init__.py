"""A model repository for NVIDIA Triton Inference Server: the network and the fused graph, each with its configuration.

Doors: ``export_triton``, ``Serving``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
