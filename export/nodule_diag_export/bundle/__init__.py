"""A bundle from a trained model: manifest, files, case base and model card, with the figures that it reaches.

Doors: ``export_bundle``, ``export_model``, ``replace_case_base``, ``add_precision``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
