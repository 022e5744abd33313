from .file import add_winograd as add_winograd
from .graph import winograd_graph as winograd_graph
