from .identity import identity_of as identity_of
from .writing import VIEWER as VIEWER
from .writing import report_html as report_html
from .writing import viewer_data as viewer_data
from .writing import write_report as write_report
