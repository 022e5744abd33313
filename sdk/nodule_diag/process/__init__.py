"""What a process does and not what it is about: threads, CPU quota, work side by side, children, files written whole.

This code does not depend on CTs or networks.
Doors: ``resolve_threads``, ``available_cores``, ``filter_threads``, ``in_order``, ``Children``, ``Stopwatch``,
``write_bytes``, ``sole_writer``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
