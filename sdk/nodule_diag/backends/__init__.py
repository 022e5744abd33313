"""Runtimes that can execute a bundle's network: one Protocol, one module a runtime, chosen by name.

There is no silent fallback: a request that cannot be served raises, and ``auto`` reports its choice.
Doors: ``create_backend``, the ``Backend`` Protocol and its ``Outputs``, ``backend_statuses``, ``SelfTest``, parity,
golden answers and symmetry.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
