"""Serving the dashboard until somebody ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable

from werkzeug.serving import WSGIRequestHandler, make_server

from ablations.errors import UserError
from ablations.shown_text import shown_url
from analysis.dashboard.app import make_app
from analysis.dashboard.security import is_loopback, new_token
from analysis.results import Origin
from sweeps.store import Store

TOKEN_VARIABLE = "MM1_DASHBOARD_TOKEN"
SHORTEST_TOKEN = 16  # characters


def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = 8050,
    allowed: Iterable[str] = (),
    origin: Origin | None = None,
    *,
    actions: bool = False,
) -> int:
    """Serve the dashboard until interrupted; the exit code, 130 after Ctrl-C and 0 after SIGTERM.

    `allowed` are names that browsers may call it by, beside localhost, `host`, this machine's name
    and addresses in numbers. `origin` reads study files, to say which have changed. With `actions`
    whoever has the token may pause, resume and cancel runs and write notes. A token is printed
    where one is needed: with actions, and for whoever comes by another name than localhost.
    Raises `UserError` where the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    token = _token()
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot serve on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    names = list(allowed)
    with listening:
        app = make_app(store, [host, *names], origin, token=token, actions=actions).server
        server = make_server(
            host, port, app, threaded=True, fd=listening.fileno(), request_handler=_Requests
        )
        ended_by = []

        def end(number: int, _frame: object) -> None:
            ended_by.append(number)
            threading.Thread(target=server.shutdown, daemon=True).start()

        # Also where a shell has told a background process to ignore them.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if actions or names or not is_loopback(host):
            place += f"/?token={token}"
        print(f"dashboard of {shown_url(store.root)}: {place} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 130 if ended_by[:1] == [signal.SIGINT] else 0


def _token() -> str:
    """That of the environment, which several starts can share, or a new one."""
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given and len(given) < SHORTEST_TOKEN:
        raise UserError(f"{TOKEN_VARIABLE} has less than {SHORTEST_TOKEN} characters: too short")
    return given or new_token()


class _Requests(WSGIRequestHandler):
    timeout = 60  # seconds; a browser that says nothing holds no thread for ever
