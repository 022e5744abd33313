"""Tables that people and programs write: the bytes and text of a file, its rows, its numbers.

Doors: ``Table``, ``number``, ``point``; ``read_bytes``, ``text_of``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
