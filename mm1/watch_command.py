"""`mm1 watch`: a study under way, from any terminal or machine that has its store."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Generator

import click

from ablations.errors import UserError
from mm1.options import json_option, store_option
from mm1.terminal import say

LOOK_SECONDS = 1.0
BUSY_SHARE = 0.1  # of the time, at most, that looking may take
LEAVING = frozenset("qQ\x03\x04")  # and Ctrl-C, Ctrl-D
FORWARD, BACK = ("n", " ", "\x1b[B", "\x1b[6~", "\x1b[C"), ("p", "b", "\x1b[A", "\x1b[5~", "\x1b[D")


@click.command()
@click.argument("study", required=False)
@store_option
@json_option
@click.option("--once", is_flag=True, help="Print what there is now, and leave.")
def watch(study: str | None, store: str, as_json: bool, once: bool) -> int:
    """Watch a study that runs: trials, what is running, claims, faults. `q` leaves it running.

    STUDY is a name or a file; without it, the one that runs. In a terminal a view of the whole
    screen; elsewhere lines, until the run ends. `--json`: an object a line for each event
    (docs/watching.md).

    \b
    Example: mm1 watch demo
    """
    from mm1.watching import Watching, chosen
    from sweeps.store import Store

    opened = Store(store)
    watching = Watching(opened, chosen(opened, study))
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")
    if as_json or once or dumb or not sys.stdout.isatty():
        return _follow(watching, as_json=as_json, once=once)
    return _show(watching)


def _follow(watching, *, as_json: bool, once: bool) -> int:
    """Print events until the run ends."""
    from mm1.watch_events import Events, line

    events = Events()
    while True:
        began = time.monotonic()
        view = _looked(watching)
        for event in events.of(view):
            text = json.dumps(event) if as_json else line(event, view)
            if as_json:
                print(text)
            elif text is not None:
                say(text)
        sys.stdout.flush()
        if once or not view.run.is_on:
            return 0
        _rest(began)


def _looked(watching):
    view = watching.look()
    if watching.results is not None:
        watching.results.looked("mm1 watch")
    return view


def _rest(began: float) -> None:
    time.sleep(_pause(time.monotonic() - began))


def _pause(took: float) -> float:
    """Seconds until the next look, so that looking at a large study takes a part of the time."""
    return max(LOOK_SECONDS, took / BUSY_SHARE - took)


def _show(watching) -> int:
    """Draw the whole screen again whenever something may be another, until a key says leave."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from mm1.watch_view import screen

    console = Console(highlight=False)
    view, page, trouble = _looked(watching), 0, ""
    looked, pause = time.monotonic(), LOOK_SECONDS
    with (
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        while True:
            size = console.size
            shown = screen(view.later(time.monotonic()), size.width, size.height, page)
            page = shown.page
            lines = list(shown.lines)
            if trouble:
                lines[-1] = Text(trouble, style="yellow", no_wrap=True, overflow="ellipsis")
            live.update(Group(*lines), refresh=True)
            deadline = time.monotonic() + LOOK_SECONDS
            while (left := deadline - time.monotonic()) > 0 and console.size == size:
                key = pressed(min(left, 0.1))
                if key in LEAVING:
                    return 0
                if key in FORWARD or key in BACK:
                    page = (page + (1 if key in FORWARD else -1)) % shown.pages
                    break
            if time.monotonic() - looked >= pause:
                looked = time.monotonic()
                try:
                    view, trouble = _looked(watching), ""
                except (OSError, UserError) as error:  # it may come back
                    trouble = f"the store cannot be read: {error}"
                pause = _pause(time.monotonic() - looked)


@contextlib.contextmanager
def _keys() -> Generator:
    """A function that waits for some seconds for a key, and gives it or ""."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 16).decode("utf-8", "replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
