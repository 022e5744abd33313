"""What a prediction is: frozen results, their maps on the CT's grid, and the document that other programs read.

Nothing here computes a diagnosis; a result only says what was found.
Doors: ``Prediction``, ``Diagnosis`` and its parts, ``prediction_document``, the overlay writers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
