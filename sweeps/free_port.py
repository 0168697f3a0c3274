"""A port of this machine for something that is about to listen."""

from __future__ import annotations

import socket


def free_port(host: str = "") -> int:
    """A port that nobody listens on, of all interfaces or of that of one address."""
    with socket.socket() as found:
        found.bind((host, 0))
        return found.getsockname()[1]
