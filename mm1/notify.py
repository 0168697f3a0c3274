"""Telling somebody that a study has ended, stalls or has reached a verdict.

A target is an address (http or https), to which JSON is posted, or a shell command, which is given
it on its standard input. What is told is what `mm1 watch` shows. A target that fails is warned of
once and holds up nothing.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ablations.errors import UserError
from ablations.shown_text import each_text, hiding, visible, without_secrets

if TYPE_CHECKING:
    from mm1.watching import View

VARIABLE = "MM1_NOTIFY"  # targets, one a line, where no --notify is given
LOOK_SECONDS = 10.0  # how often the study is looked at
TARGET_SECONDS = 20.0  # that a target may take
LAST_SECONDS = 30.0  # that the end of a run waits for what is still to be told


def targets(given: Sequence[str]) -> tuple[str, ...]:
    """What was given, else what the environment says. Raises `UserError` for what is no target."""
    found = tuple(given) or tuple(os.environ.get(VARIABLE, "").split("\n"))
    found = tuple(one.strip() for one in found if one.strip())
    for one in found:
        if "://" in one.split()[0] and not is_address(one):
            raise UserError(
                f"--notify {shown_target(one)}: an address begins with http:// or https://, "
                "anything else is a command"
            )
    return found


def is_address(target: str) -> bool:
    """Whether a target is an address and no command."""
    return target.startswith(("http://", "https://"))


def shown_target(target: str) -> str:
    """A target without its secrets: of an address the path is one too, as chat services have it."""
    if "://" not in target:
        return without_secrets(target)
    parts = urlsplit(target)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}/…"


def send(target: str, message: dict[str, Any]) -> None:
    """Tell one target. Raises whatever goes wrong."""
    body = json.dumps(message).encode()
    if is_address(target):
        request = urllib.request.Request(
            target, data=body, headers={"Content-Type": "application/json", "User-Agent": "mm1"}
        )
        with urllib.request.urlopen(request, timeout=TARGET_SECONDS) as answer:
            answer.read(1)
        return
    done = subprocess.run(
        ["/bin/sh", "-c", target],
        input=body,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=TARGET_SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        raise OSError(f"it ended with {done.returncode}" + (f": {said[:200]}" if said else ""))


class Notifying:
    """Tells targets about a study while it runs; a context around the run.

    `ended` says how it ended; without it, that it broke off.
    """

    def __init__(self, study: str, store: str, targets: Sequence[str]):
        self._study, self._root, self._targets = study, store, tuple(targets)
        self._over = threading.Event()
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failed: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._code: int | None = None

    def __enter__(self) -> Notifying:
        if self._targets:
            for work in (self._look, self._send):
                self._threads.append(threading.Thread(target=work, daemon=True, name="notify"))
                self._threads[-1].start()
        return self

    def ended(self, code: int) -> None:
        """The run's exit code."""
        self._code = code

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._targets:
            return
        deadline = time.monotonic() + LAST_SECONDS
        self._over.set()
        self._threads[0].join(LAST_SECONDS / 2)
        self._messages.put(self._end(error))
        self._messages.put(None)
        self._threads[1].join(max(0.0, deadline - time.monotonic()))

    def _look(self) -> None:
        """Look at the study now and then, and once more when its run has ended."""
        from mm1.watching import Watching
        from sweeps.store import Store

        news = News()
        watching: Watching | None = None
        last = False
        while not last:
            last = self._over.wait(LOOK_SECONDS)
            try:
                watching = watching or Watching(Store(self._root), self._study)
                view = watching.look()
                for message in news.of(view):
                    if message["event"] == "verdict" and watching.results is not None:
                        watching.results.looked("mm1 run --notify")
                    self._messages.put(message)
            except (OSError, UserError):  # not registered yet, or the storage does not answer
                continue

    def _end(self, error: BaseException | None) -> dict[str, Any]:
        from mm1.watching import Watching
        from sweeps.store import Store

        code = self._code
        words = {0: "all trials are there", 1: "some trials are missing", 130: "it was stopped"}
        told = words.get(code, f"exit code {code}") if code is not None else "it broke off"
        if error is not None:
            told = " ".join(str(error).split()) or type(error).__name__
        message: dict[str, Any] = {"event": "ended", "study": self._study, "code": code}
        try:
            view = Watching(Store(self._root), self._study).look()
            message["trials"] = dict(view.counts)
            message["claims"] = {one.name: one.verdict or None for one in view.claims}
            counts = ", ".join(f"{n} {state}" for state, n in view.counts.items() if n)
            told += f" ({counts})"
        except (OSError, UserError):
            pass
        return {**message, "text": f"{self._study} has ended: {told}"}

    def _send(self) -> None:
        hide = hiding()
        while (message := self._messages.get()) is not None:
            message = each_text({"time": round(time.time(), 3), **message}, hide)
            for target in self._targets:
                try:
                    send(target, message)
                except Exception as error:  # whatever a server, a network or a command does
                    if target not in self._failed:
                        self._failed.add(target)
                        _warn(target, error)


def _warn(target: str, error: Exception) -> None:
    what = " ".join(f"{type(error).__name__}: {error}".split()).replace(target, "it")
    line = f"mm1: warning: --notify {shown_target(target)}: {what}; the run goes on"
    print(visible(without_secrets(line)), file=sys.stderr)


class News:
    """What of a study is worth telling: verdicts that are new, and stages that have gone silent."""

    def __init__(self) -> None:
        self._open: set[str] | None = None  # claims without a verdict, as of the last look
        self._silent: set[str] = set()

    def of(self, view: View) -> list[dict[str, Any]]:
        """What a view has that the last one had not; of the first one no verdicts."""
        from mm1.watch_view import told_claim
        from sweeps.display import clock

        found = []
        for one in view.claims:
            if self._open is not None and one.name in self._open and not one.interim:
                found.append(
                    {
                        "event": "verdict",
                        "study": view.study,
                        "claim": one.name,
                        "verdict": one.verdict,
                        "effect": one.effect,
                        "standing": one.standing,
                        "text": f"{view.study}: {one.name}: {told_claim(one)[0]}",
                    }
                )
        self._open = {one.name for one in view.claims if one.interim}
        for one in view.stages:
            if one.silent_seconds and one.stage not in self._silent:
                self._silent.add(one.stage)
                found.append(
                    {
                        "event": "stalled",
                        "study": view.study,
                        "stage": one.stage,
                        "label": one.label,
                        "seconds": round(one.silent_seconds, 1),
                        "text": f"{view.study}: no report for {clock(one.silent_seconds)} of "
                        f"{one.label}; it may hang: mm1 logs {one.stage[:8]}",
                    }
                )
        return found
