"""A prediction as DICOM objects: what a PACS stores, and other viewers show in the right place.

A structured report (TID 1500), a segmentation on the CT's own frames, the CAM as a parametric map, and pictures that
every viewer shows. All of it needs the extra ``dicom``.
Doors: ``dicom_objects``, ``write_dicom_objects``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
