"""The SDK over HTTP: CTs held in memory, predictions, jobs, the Open Inference Protocol, metrics and a page.

Without ``keep``, no patient data is written to a disk. No log names a patient. docs/service.md describes the interface.
Doors: ``Settings``, ``read_token``, ``create_app``, ``serve``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
