from .ablation import ablate as ablate
from .command import EVERYBODY as EVERYBODY
from .command import FOLDS as FOLDS
from .command import SPLIT_SEED as SPLIT_SEED
from .command import held_out_of as held_out_of
from .command import lung_of_fold as lung_of_fold
from .command import packaged as packaged
