"""Serving a page on a port until somebody ends it."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from werkzeug.serving import WSGIRequestHandler, make_server

from ablations.errors import UserError

if TYPE_CHECKING:
    from flask import Flask


class _Requests(WSGIRequestHandler):
    timeout = 60  # seconds; a browser that says nothing holds no thread for ever


def serve_until_ended(
    host: str, port: int, make_app: Callable[[], Flask], begun: Callable[[str], None]
) -> int:
    """Serve an application until interrupted; the exit code, 130 after Ctrl-C and 0 after SIGTERM.

    It is made once the port is had, and `begun` is told the address before the first answer.
    Raises `UserError` where the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot serve on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    with listening:
        server = make_server(
            host,
            port,
            make_app(),
            threaded=True,
            fd=listening.fileno(),
            request_handler=_Requests,
        )
        ended_by: list[int] = []

        def end(number: int, _frame: object) -> None:
            ended_by.append(number)
            threading.Thread(target=server.shutdown, daemon=True).start()

        # Also where a shell has told a background process to ignore them.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)
        begun(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        server.serve_forever()
    return 130 if ended_by[:1] == [signal.SIGINT] else 0
