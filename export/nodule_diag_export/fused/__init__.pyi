from .file import Source as Source
from .file import export_fused as export_fused
from .file import fuse_model as fuse_model
from .file import open_source as open_source
from .graph import HuType as HuType
