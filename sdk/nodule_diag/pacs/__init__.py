"""A PACS over DICOMweb: a series comes whole or not at all, and what was made of it goes back.

The only room that talks to a network, and only to the server that the caller names. It needs the extra ``pacs``.
Doors: ``Pacs``, ``FetchedSeries``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
