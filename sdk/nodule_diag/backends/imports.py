"""Imports the runtime of an extra when it is first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from nodule_diag.errors import BackendError, MissingExtraError


def import_installed(module: str, *, package: str, extra: str, code: str, reinstall: str = "") -> ModuleType:
    """Import a module of ``package``; ``reinstall`` replaces the package's name in the hint for pip.

    Raises:
        MissingExtraError: When it is not installed.
        BackendError: ``code`` when it is installed but cannot be loaded.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, extra) from error
    except (ImportError, OSError) as error:
        raise BackendError(
            f"{package} is installed but cannot be loaded: {error}",
            hint=f"pip install --force-reinstall {reinstall or package}",
            code=code,
        ) from error
