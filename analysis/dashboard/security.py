"""Who may ask what. The dashboard reads other people's text and answers whoever can reach it.

- A web page elsewhere can have its own name lead to this machine (DNS rebinding) and then read what
  it likes, so only names that we know are answered, and posts of our own page only.
- On this machine, by `localhost` or its numbers, everybody may read. By any other name or number,
  and for whatever changes something, a token is needed. It comes once with an address
  (`?token=…`), and then in a cookie that only our own pages send.
- A page runs no script but ours, so a text that gets into one where it should not does nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

from dash import Dash
from dash.exceptions import DashException
from flask import Request, Response, abort, redirect, request

from ablations.shown_text import visible

MOST_BYTES = 300_000  # of a request; the page's own are far below
COOKIE = "mm1"
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
TOKEN_BYTES = 24


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def guard(app: Dash, allowed: Iterable[str], token: str | None) -> None:
    """Refuse what no page of ours asks, before anything of it is read."""
    names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in allowed)}
    app.server.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @app.server.before_request
    def check() -> Any:
        host = request.headers.get("Host", "")
        if not _is_known(host, names):
            abort(403, f"{visible(host)[:100]} is no name of this dashboard; see --allow")
        if (request.content_length or 0) > MOST_BYTES:
            abort(413)
        if token and request.method == "GET" and "token" in request.args:
            return _with_cookie(token)
        if not is_of_this_machine(request) and not has_token(request, token):
            abort(403, "a token is needed: open the address that mm1 dashboard printed")
        if request.method == "POST":
            if request.content_length is None:
                abort(411)
            origin = request.headers.get("Origin")
            site = request.headers.get("Sec-Fetch-Site", "same-origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                abort(403, "a page of another origin asks")
            if site not in ("same-origin", "none"):
                abort(403, "a page of another site asks")
            if not _is_asked_for(request, app):
                abort(400)
        return None

    @app.server.after_request
    def protect(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["Content-Security-Policy"] = policy
        return response

    scripts = " ".join(app.csp_hashes())
    policy = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    # What Dash raises for an address that is not there.
    app.server.register_error_handler(DashException, lambda _: ("not found", 404))


def _is_known(host: str, names: Collection[str]) -> bool:
    name = host_name(host)
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)  # no name, so nobody else's either
        return True
    return name in names


def host_name(host: str) -> str:
    """The name, or the address in numbers, of a Host header."""
    name = host.partition("]")[0].removeprefix("[") if host[:1] == "[" else host.partition(":")[0]
    return name.lower().rstrip(".")


def is_loopback(name: str) -> bool:
    """Whether a name or address means the machine itself, whoever says it."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def is_of_this_machine(asked: Request) -> bool:
    """Whether somebody at this machine asks: under its own name for itself, from itself.

    What a proxy passes on comes from elsewhere, whatever name it calls us by.
    """
    if any(name in asked.headers for name in FORWARDED):
        return False
    return is_loopback(host_name(asked.headers.get("Host", ""))) and is_loopback(
        asked.remote_addr or "127.0.0.1"
    )


def has_token(asked: Request, token: str | None) -> bool:
    """Whether who asks has shown the token."""
    given = asked.cookies.get(COOKIE, "")
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


def _with_cookie(token: str) -> Any:
    """The same address without the token, which the browser keeps from now on."""
    given = request.args.get("token", "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        abort(403, "that is not the token of this dashboard")
    rest = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
    # Of this server, whatever the path says: `//evil.example/` would be another's.
    path = "/" + request.path.lstrip("/\\")
    answer = redirect(path + (f"?{urlencode(rest)}" if rest else ""))
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
    return answer


def _is_asked_for(asked: Request, app: Dash) -> bool:
    """Whether a post is of the shape that the page sends: else Dash fails somewhere in the middle.

    What the values are is for the callbacks to say.
    """
    try:
        body = asked.get_json()
        callback = app.callback_map[body["output"]]
        outputs = body["outputs"]
        if isinstance(outputs, dict):
            outputs = [outputs]
        count = len(callback["output"]) if isinstance(callback["output"], list) else 1
        return (
            len(outputs) == count
            and all({"id", "property"} <= set(one) for one in outputs)
            and _are(body["inputs"], callback["inputs"])
            and _are(body.get("state", []), callback["state"])
            and isinstance(body.get("changedPropIds", []), list)
            and all(isinstance(one, str) for one in body.get("changedPropIds", []))
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def _are(given: Any, declared: list[dict[str, Any]]) -> bool:
    return len(given) == len(declared) and all(
        one["id"] == known["id"] and one["property"] == known["property"]
        for one, known in zip(given, declared, strict=True)
    )
