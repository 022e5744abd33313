"""The error tree: everything the SDK raises on purpose.

.. code-block:: text

    NoduleDiagError                          exit 1
    ├── UsageError        (ValueError)       exit 2   arguments, nodule lists, K
    ├── CTError           (ValueError)       exit 3   the CT cannot be read or must not be used
    ├── CoordinateError   (ValueError)       exit 3   a point that is not in the volume
    ├── BundleError       (ValueError)       exit 4   a bundle that is damaged, altered or of another schema
    │   └── CaseBaseError                    exit 4   a case base that is damaged, or of another schema or model
    ├── BackendError      (RuntimeError)     exit 5   the requested backend or device cannot serve
    │   └── MissingExtraError (ImportError)  exit 5   an optional dependency is not installed
    ├── PacsError         (ConnectionError)  exit 6   a remote server refused or failed
    └── OutputError       (OSError)          exit 1   a result could not be written

Every error also derives from the matching builtin, so ``except ValueError`` works for callers who do not know this
package. ``code`` is a stable kebab-case word for programs. The message is for people and names the refused value.
``hint`` says what to do about the error.
"""

from __future__ import annotations

from typing import ClassVar

MAX_MESSAGE = 2000
"""Characters. The middle of a longer text is left out: text from a damaged file may have any length."""


def bounded(text: str) -> str:
    """A text of at most :data:`MAX_MESSAGE` characters."""
    half = MAX_MESSAGE // 2 - 5
    return text if len(text) <= MAX_MESSAGE else f"{text[:half]} [...] {text[-half:]}"


class NoduleDiagError(Exception):
    """Base of all errors of this package.

    Args:
        message: What is wrong, in one line, with the value that was refused.
        hint: What to do about it, in one line; empty when there is nothing to say.
        code: Stable identifier for programs; the class's own when left out.
    """

    code: str = "nodule-diag-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        self.whole = message, hint  # redact this, then bound it: a name cut in two is not recognised
        self.message, self.hint = bounded(message), bounded(hint)
        super().__init__(self.message)
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        """The message alone; OSError and ImportError would otherwise print their own arguments."""
        return self.message

    def to_dict(self) -> dict[str, str]:
        """The three fields of the command line's ``{"error": ...}`` document."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class UsageError(NoduleDiagError, ValueError):
    """An argument, a nodule list or an option that makes no sense."""

    code = "usage"
    exit_code = 2


class CTError(NoduleDiagError, ValueError):
    """A CT that cannot be read, or that must not be used for a diagnosis."""

    code = "ct-rejected"
    exit_code = 3


class CoordinateError(NoduleDiagError, ValueError):
    """A point that is not finite or not inside the CT."""

    code = "coordinate-rejected"
    exit_code = 3


class BundleError(NoduleDiagError, ValueError):
    """A bundle that is damaged, altered, incomplete or of another schema."""

    code = "bundle-rejected"
    exit_code = 4


class CaseBaseError(BundleError):
    """A file that is not a case base, or a case base that is damaged, empty, or of another schema or model."""

    code = "case-base-rejected"


class BackendError(NoduleDiagError, RuntimeError):
    """A requested backend or device that cannot be used."""

    code = "backend-unavailable"
    exit_code = 5


class MissingExtraError(BackendError, ImportError):
    """An optional dependency that is not installed.

    Args:
        package: The import that failed, as the user knows it.
        extra: The extra of this distribution that installs it.
    """

    code = "missing-extra"

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{package} is not installed; run: pip install 'nodule-diag[{extra}]'",
            hint=f"pip install 'nodule-diag[{extra}]'",
        )


class PacsError(NoduleDiagError, ConnectionError):
    """A remote server that refused, failed, or did not send everything."""

    code = "pacs-failed"
    exit_code = 6


class OutputError(NoduleDiagError, OSError):
    """A result that could not be written."""

    code = "output-failed"
