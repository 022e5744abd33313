"""A run: its steps, checkpoints, log and processes. It resumes after a kill and repeats to the bit.

``data`` and ``losses`` decide what is learned.
Doors: ``Run``, ``load_model``, ``step_losses``, ``Execution``, ``Processes``, ``code_digest``, ``Origin``, the
optimiser's parts (``rated_parameters``, ``damp_mean_direction``), and the logs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
