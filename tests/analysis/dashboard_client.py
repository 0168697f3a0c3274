"""What a browser asks of the dashboard, without a browser."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy
from werkzeug.serving import make_server

from analysis.dashboard import make_app
from mm1.origin import ORIGIN
from sweeps.store import Store

POST = "/_dash-update-component"
TOKEN = "a-token-that-nobody-guesses"


def page_body(
    dependencies: list[dict[str, Any]],
    path: Any,
    search: Any = "",
    seen: Any = None,
    chosen: Any = None,
) -> dict[str, Any]:
    """The body of what the browser posts for a page."""
    (callback,) = (one for one in dependencies if "page.children" in one["output"])
    names = re.findall(r"(\w+)\.(\w+)", callback["output"])
    values = {
        "url": {"pathname": path, "search": search},
        "tick": {"n_intervals": 1},
        "seen": {"data": seen},
        "chosen": {"data": chosen},
    }
    return {
        "output": callback["output"],
        "outputs": [{"id": name, "property": prop} for name, prop in names],
        **{
            kind: [{**one, "value": values[one["id"]][one["property"]]} for one in callback[kind]]
            for kind in ("inputs", "state")
        },
        "changedPropIds": ["tick.n_intervals"],
    }


Is = Callable[[str], bool]  # whether a page is what was waited for, by its text


def page_of(
    store: Store, path: str, search: str = "", until: Is = lambda _: True
) -> dict[str, Any]:
    """What a page shows: `navigation`, `controls`, `page`, `seen`."""
    return client_page(make_app(store).server.test_client(), path, search, until)


def client_page(
    client: Any, path: str, search: str = "", until: Is = lambda _: True, **headers: str
) -> dict[str, Any]:
    """The same from a server that is there."""
    declared = client.get("/_dash-dependencies", headers=headers).get_json()
    end = time.monotonic() + 60
    while True:
        answer = client.post(POST, json=page_body(declared, path, search), headers=headers)
        assert answer.status_code == 200, answer.data
        assert b"NaN" not in answer.data  # which browsers cannot read
        found = answer.get_json()["response"]
        shown = {name: next(iter(parts.values())) for name, parts in found.items()}
        page = told(shown["page"])
        if "Working this out" not in page and until(page):
            return shown
        assert time.monotonic() < end, page


def texts(part: Any) -> Iterator[str]:
    """Every text of a page."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list | dict):
        for one in part.values() if isinstance(part, dict) else part:
            yield from texts(one)


def told(part: Any) -> str:
    """All text of a page."""
    return " ".join(texts(part))


def figures_of(page: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figure of every graph of a page."""
    if isinstance(page, dict):
        if page.get("type") == "Graph":
            yield page["props"]["id"]["name"], page["props"]["figure"]
        page = list(page.values())
    for part in page if isinstance(page, list) else []:
        yield from figures_of(part)


def values(sent: Any) -> list[float]:
    """The numbers of a figure, which travel as bytes where there are many."""
    if isinstance(sent, dict):
        return numpy.frombuffer(base64.b64decode(sent["bdata"]), sent["dtype"]).tolist()
    return sent


@contextmanager
def served(store: Store, **options: Any) -> Iterator[str]:
    """The address of a dashboard that listens, as `mm1 dashboard` serves it."""
    app = make_app(store, **{"origin": ORIGIN, **options})
    server = make_server("127.0.0.1", 0, app.server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def tick(address: str, path: str, seen: Any = None, search: str = "") -> dict[str, Any] | None:
    """What the browser asks for every two seconds; None where nothing has changed."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = _tick(address, path, seen, search)
        if found is None or "Working this out" not in told(found["page"]):
            return found
    raise AssertionError(f"{path} is not made within a minute")


def _tick(address: str, path: str, seen: Any, search: str) -> dict[str, Any] | None:
    body = page_body(json.loads(get(f"{address}/_dash-dependencies")), path, search, seen)
    request = urllib.request.Request(
        address + POST, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
        assert "NaN" not in text
        if answer.status != 200:
            return None
        found = json.loads(text)["response"]
        return {name: next(iter(parts.values())) for name, parts in found.items()}


def tick_until(address: str, path: str, is_it: Is, seen: Any = None) -> dict[str, Any]:
    """What the page shows as soon as it shows that, looked at as often as a browser may."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = tick(address, path, seen)
        if found is not None:
            if is_it(told(found["page"])):
                return found
            seen = found["seen"]
    raise AssertionError(f"not on {path} within a minute; last: {seen}")
