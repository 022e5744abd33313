"""Many CTs over many processes: a manifest of CTs and nodules, an answer a CT, one table, and resuming after any end.

Doors: ``read_manifest``, ``Manifest``, ``ListedCT``; ``run_batch``, ``BatchOptions``, ``Limits``, ``Standing``,
``Summary``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
