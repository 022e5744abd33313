from .engine import export_engine as export_engine
from .engine import network_of as network_of
