"""The case base: diagnosed nodules, and which of them are most like a new one (paper eq. 13, 14).

One SQLite file holds the cases. hnswlib compares, case ids break ties, and the result is that of an exhaustive search.
Doors: ``CaseBase``, ``CaseIndex``, ``Case``, ``mean_label``; to make one from a hospital's cases ``read_case_table``,
``build_case_base``, ``add_to``; ``selected`` filters it, ``evaluate_cases`` measures it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
