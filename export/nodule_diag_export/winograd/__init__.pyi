from .file import add_winograd as add_winograd
