"""One page that a person can judge a prediction by: pictures, evidence and similar cases, in a file of its own.

The page opens offline, contacts no server, and can be printed.
Doors: ``VIEWER``, ``report_html``, ``write_report``, ``identity_of``, ``viewer_data``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
