from .config import Serving as Serving
from .repository import export_triton as export_triton
