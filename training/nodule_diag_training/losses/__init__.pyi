from .objective import LossTerms as LossTerms
from .objective import step_losses as step_losses
from .paper import THRESHOLD as THRESHOLD
from .paper import class_cam as class_cam
