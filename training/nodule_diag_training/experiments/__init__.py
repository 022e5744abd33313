"""The paper's tables and figures: which run a row is, what was recorded of it, and the page made of the records.

Doors: ``CATALOGUE`` and its runs, the schedules, the commands.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
