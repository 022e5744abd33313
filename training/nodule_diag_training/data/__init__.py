"""What a model learns from: nodules, their labels and voxels, and the patches that are drawn from them.

``lidc`` reads LIDC-IDRI, ``prepare`` fills a store from CTs, and the other modules draw.
Doors: ``Nodule``, ``TrainingData``, ``PairSource``, ``PatchSampler``, the labels, what
benchmarks draw with on a GPU (``at_half_mm``, ``symmetry``, ``fade``), and ``app`` of ``train prepare``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
