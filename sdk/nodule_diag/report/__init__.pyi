from .identity import identity_of as identity_of
from .view import nodule_view as nodule_view
from .writing import report_html as report_html
from .writing import write_report as write_report
