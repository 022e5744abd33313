from .synergic import FEATURE_CHANNELS as FEATURE_CHANNELS
from .synergic import GRID_STRIDE as GRID_STRIDE
from .synergic import PATCH_CHANNELS as PATCH_CHANNELS
from .synergic import SynergicModel as SynergicModel
from .synergic import SynergicOutput as SynergicOutput
from .synergic import build_model as build_model
from .synergic import count_weights as count_weights
from .winograd import DilatedConv3d as DilatedConv3d
