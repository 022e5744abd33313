"""The address of a server, and the account for it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import requests

from nodule_diag.errors import UsageError

TOKEN, USER, PASSWORD = (f"NODULE_DIAG_DICOMWEB_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def account() -> Bearer | tuple[str, str] | None:
    """The account in the environment; without one, None, and ``~/.netrc`` is used."""
    if token := os.environ.get(TOKEN):
        return Bearer(token)
    if user := os.environ.get(USER):
        return user, os.environ.get(PASSWORD, "")
    return None


class Bearer(requests.auth.AuthBase):
    """A token. It takes precedence over an account in ~/.netrc, which a plain header would not."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The request with the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def checked_address(url: str) -> str:
    """Check that an account may be sent to an address; return the address without a slash at its end.

    Raises:
        UsageError: ``pacs-url``.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - an invalid port is found here
    except ValueError as error:
        raise UsageError(
            f"{url!r} is not the address of a DICOMweb server ({error})",
            hint="give its root, such as https://pacs.example/dicom-web",
            code="pacs-url",
        ) from error
    if parts.username or parts.password:
        raise UsageError(
            "the address of the DICOMweb server holds an account, which others can read on the command line",
            hint=f"set {USER} and {PASSWORD}, or write the account into ~/.netrc",
            code="pacs-url",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            f"{url!r} is not the address of a DICOMweb server",
            hint="give its root, such as https://pacs.example/dicom-web",
            code="pacs-url",
        )
    sent = account() or requests.utils.get_netrc_auth(url)
    if sent and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(
            f"{url} is not encrypted, and an account would be sent there for all to read",
            hint="give its https:// address",
            code="pacs-url",
        )
    return url.rstrip("/")
