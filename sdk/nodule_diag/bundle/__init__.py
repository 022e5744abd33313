"""A bundle: a network with all that it needs, in a folder or a zip.

Every file's hash is checked before the file is parsed, nothing is pickled, and no path leaves the bundle.
Doors: ``Bundle``, ``Manifest`` and its parts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
