"""A CT in Hounsfield units on LPS axes: reading it from any supported file, its grid, points in it, a phantom.

Axes are flipped only here. A file that cannot be right is refused, and the error says why.
Doors: ``read_ct``, ``CTVolume``, ``FORMAT_NAMES``, ``to_lps`` and related functions, ``chest_phantom``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
