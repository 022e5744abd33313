from .luna25 import Answered as Answered
from .luna25 import answer_grand_challenge as answer_grand_challenge
from .position import Position as Position
from .position import PositionFile as PositionFile
from .reading import open_positions as open_positions
from .reading import read_positions as read_positions
from .writing import require_positions_format as require_positions_format
from .writing import write_positions as write_positions
