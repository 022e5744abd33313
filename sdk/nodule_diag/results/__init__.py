"""What a prediction is: frozen results, what people and programs are shown of them, and their maps as files.

Nothing here computes a diagnosis; a result only says what was found.
Doors: ``Prediction``, ``Diagnosis`` and its parts, ``UNCALIBRATED``, ``prediction_document``, ``figures``, the overlay
writers, ``Redaction``, ``redacted``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
