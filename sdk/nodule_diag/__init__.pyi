from .batch import Scan as Scan
from .batch import ScanResult as ScanResult
from .bundle.bundle import Bundle as Bundle
from .cases.base import CaseBase as CaseBase
from .cases.case import Case as Case
from .ct.reading import read_ct as read_ct
from .ct.volume import CTVolume as CTVolume
from .diagnoser import Diagnoser as Diagnoser
from .errors import BackendError as BackendError
from .errors import BundleError as BundleError
from .errors import CaseBaseError as CaseBaseError
from .errors import CoordinateError as CoordinateError
from .errors import CTError as CTError
from .errors import MissingExtraError as MissingExtraError
from .errors import NoduleDiagError as NoduleDiagError
from .errors import OutputError as OutputError
from .errors import UsageError as UsageError
from .results.diagnosis import Cam as Cam
from .results.diagnosis import Diagnosis as Diagnosis
from .results.diagnosis import Faithfulness as Faithfulness
from .results.diagnosis import Prediction as Prediction
from .results.diagnosis import Runtime as Runtime
from .results.diagnosis import SimilarCase as SimilarCase
from .results.document import prediction_document as prediction_document
from .results.segmentation import Segmentation as Segmentation

__version__: str
