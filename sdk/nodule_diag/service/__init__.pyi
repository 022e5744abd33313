from .app import create_app as create_app
from .server import serve as serve
from .settings import Settings as Settings
from .settings import read_token as read_token
