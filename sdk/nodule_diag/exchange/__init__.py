"""Positions of nodules as detectors and people write them, and answers as their programs read them.

Doors: ``read_positions``, ``open_positions``, ``PositionFile``, ``Position``; ``write_positions``,
``require_positions_format``; ``answer_grand_challenge``, ``Answered``; ``refused``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
