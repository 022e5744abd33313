"""``serve --open``: a browser is opened once somebody listens, and never where there is no screen."""

from __future__ import annotations

import socket

import pytest

from nodule_diag_cli import browser


def test_opens_once_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(browser.webbrowser, "open", opened.append)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        browser.open_when_up("127.0.0.1", port, "http://here").join(30)
    assert opened == ["http://here"]


def test_gives_up_where_nobody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.webbrowser, "open", lambda address: pytest.fail(address))
    monkeypatch.setattr(browser, "WAIT_S", 0.1)
    monkeypatch.setattr(browser, "LOOKED_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    browser.open_when_up("127.0.0.1", port, "http://here").join(30)


def test_a_screen_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not browser.has_browser()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert browser.has_browser()
    monkeypatch.delenv("WAYLAND_DISPLAY")
    monkeypatch.setattr(browser.sys, "platform", "darwin")
    assert browser.has_browser()
