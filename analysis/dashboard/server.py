"""Serving the dashboard until somebody ends it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from flask import Flask

from ablations.errors import UserError
from ablations.shown_text import shown_url
from analysis.dashboard.app import make_app
from analysis.dashboard.lasting_memory import hand_back_freed_memory
from analysis.dashboard.security import is_loopback, new_token
from analysis.results import Origin
from analysis.serving import serve_until_ended
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
    token, names = _token(), list(allowed)
    hand_back_freed_memory()

    def made() -> Flask:
        return make_app(store, [host, *names], origin, token=token, actions=actions).server

    def begun(place: str) -> None:
        if actions or names or not is_loopback(host):
            place += f"/?token={token}"
        print(f"dashboard of {shown_url(store.root)}: {place} (Ctrl-C ends it)", flush=True)

    return serve_until_ended(host, port, made, begun)


def _token() -> str:
    """That of the environment, which several starts can share, or a new one."""
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given and len(given) < SHORTEST_TOKEN:
        raise UserError(f"{TOKEN_VARIABLE} has less than {SHORTEST_TOKEN} characters: too short")
    return given or new_token()
