from .content import MAX_BYTES as MAX_BYTES
from .content import MAX_POSITIONS as MAX_POSITIONS
from .content import read_bytes as read_bytes
from .content import text_of as text_of
from .numbers import number as number
from .rows import Table as Table
from .rows import point as point
