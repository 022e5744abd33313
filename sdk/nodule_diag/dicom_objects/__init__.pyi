from .writing import dicom_objects as dicom_objects
from .writing import save_dicom_objects as save_dicom_objects
from .writing import write_dicom_objects as write_dicom_objects
