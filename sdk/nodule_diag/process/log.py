"""The one logger of this package: silent until the application that embeds it listens (docs/logging.md)."""

from __future__ import annotations

import logging

LOG = logging.getLogger("nodule_diag")
"""Its messages identify no patient: no path, no UID, no id and no position."""
LOG.addHandler(logging.NullHandler())  # without it Python prints warnings of an unconfigured logger to stderr
