"""From a CT and a position to the network's input (paper 4.2): lung mask, spline, windows, patch.

``reference`` follows the paper literally, on every voxel; everything else gives the same numbers faster.
Doors: ``lung_mask``, ``extract_patches`` and the constants of the patch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
