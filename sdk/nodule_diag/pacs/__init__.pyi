from .server import FetchedSeries as FetchedSeries
from .server import Pacs as Pacs
