"""Workers that are threads of this process, in the place of Ray's actors: what a driver decides is
the same, and it starts at once."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sweeps.offer import Node
from sweeps.store import Store
from sweeps.watchdog import Signs
from sweeps.worker import execute


class ThreadWorker:
    def __init__(self, shape, node, arguments, variables):
        root, data, *_ = arguments
        self._node = node
        self._store, self._data = Store(root), Path(data)
        self._stop = threading.Event()
        self._one = ThreadPoolExecutor(1)

    def run(self, stage) -> Future:
        return self._one.submit(execute, self._store, stage, self._data, self._stop, "revision")

    def stop(self):
        self._stop.set()

    def go_on(self):
        self._stop.clear()

    def ready(self) -> Future:
        return _at_once([self._node])

    def signs(self) -> Future:
        return _at_once(Signs(0.0, ""))

    def kill(self):
        self._stop.set()
        self._one.shutdown()


def _at_once(answer) -> Future:
    future: Future = Future()
    future.set_result(answer)
    return future


class Session:
    cores, embedded = 4, True

    def check(self):
        pass

    def keep_logs(self, place):
        return None


@contextlib.contextmanager
def session(*_):
    yield Session()


def use(monkeypatch):
    """Let runs have such workers."""
    monkeypatch.setattr("sweeps.run.ray_session", session)
    monkeypatch.setattr("sweeps.run.offered", lambda: [Node("here", "here", {"CPU": 4.0}, {})])
    monkeypatch.setattr("sweeps.pool.ActorWorker", ThreadWorker)
