"""Opens a page of this machine in the user's browser, once there is something to see."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import webbrowser

WAIT_S = 120.0
LOOKED_S = 0.2


def has_browser() -> bool:
    """Whether a browser has a screen to open on; without one, a text browser would take the terminal over."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_when_up(host: str, port: int, address: str) -> threading.Thread:
    """Open an address as soon as somebody listens there; gives up in silence, for the address is on the screen."""

    def wait() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, port), timeout=1.0).close()
            except OSError:
                time.sleep(LOOKED_S)
            else:
                webbrowser.open(address)
                return

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread
