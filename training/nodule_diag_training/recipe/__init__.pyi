from .ablation import ablate as ablate
from .command import RECIPE as RECIPE
from .command import packaged as packaged
