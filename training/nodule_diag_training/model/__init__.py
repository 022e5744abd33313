"""The synergic model (paper 3.1): ResNet backbone, SegNet, FNet, RNet and CNet, and the paper's lesser systems.

``synergic`` reads from top to bottom in one sitting.
Doors: ``build_model``, ``SynergicModel``, ``SynergicOutput``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
