"""One run of a command: started under a guard, listened to, asked to stop, and ended.

The guard (`guard.py`) ends the whole tree of processes when this process ends, whatever ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import UserError

GUARD = Path(__file__).with_name("guard.py")
_CHUNK = 2**16
_CLOSING_SECONDS = 10.0  # between the end of the command and that of what it printed to


class Process:
    """A running command; a context that leaves nothing of it behind.

    `heard(stream, chunk)` is called with what it prints, stream 1 or 2.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        heard: Callable[[int, bytes], None],
    ):
        self._arguments, self._folder, self._environment = arguments, folder, environment
        self._heard = heard
        self._selector = selectors.DefaultSelector()
        self._said = b""
        self.code: int | None = None  # exit code, negative the signal; None while it runs
        self._over = False

    def __enter__(self) -> Process:
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        python = [sys.executable, "-I", "-S", str(GUARD), str(control), str(status)]
        try:
            self._guard = subprocess.Popen(
                [*python, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=dict(self._environment),
                pass_fds=(control, status),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._control)
            os.close(self._status)
            raise UserError(
                f"{self._arguments[0]} cannot be started in {self._folder}: {error.strerror}"
            ) from None
        finally:
            os.close(control)
            os.close(status)
        self._selector.register(self._status, selectors.EVENT_READ, 0)
        for number, stream in ((1, self._guard.stdout), (2, self._guard.stderr)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, number)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._control)  # the guard then ends everything
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(_CLOSING_SECONDS)
        if self._guard.poll() is None:
            self._guard.kill()
            self._guard.wait()
        self._selector.close()
        os.close(self._status)
        for stream in (self._guard.stdout, self._guard.stderr):
            if stream is not None:
                stream.close()

    def listen(self, seconds: float) -> bool:
        """Take in what it prints for up to some seconds; whether it has ended and said it all.

        Raises:
            UserError: it could not be started.
            RuntimeError: the guard was killed.
        """
        until = time.monotonic() + seconds
        while not self._over and (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._take(key)
            open_streams = {key.data for key in self._selector.get_map().values()}
            if self.code is not None:
                since = time.monotonic() - self._ended
                self._over = not open_streams - {0} or since > _CLOSING_SECONDS
            elif 0 not in open_streams:
                raise RuntimeError("the process that watches over the command was killed")
        return self._over

    def stop(self) -> None:
        """Ask it to stop: SIGTERM to its whole group."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, b"T")

    def kill(self) -> None:
        """End it and all that it started, at once."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, b"K")

    def _take(self, key: selectors.SelectorKey) -> None:
        try:
            chunk = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(key.fileobj)
        elif key.data:
            self._heard(key.data, chunk)
        else:
            *lines, self._said = (self._said + chunk).split(b"\n")
            for line in lines:
                self._learn(json.loads(line))

    def _learn(self, said: Mapping[str, Any]) -> None:
        if "cannot" in said:
            raise UserError(f"{self._arguments[0]} cannot be started: {said['cannot']}")
        if "code" in said:
            self.code = said["code"]
            self._ended = time.monotonic()


def how_it_ended(code: int) -> str:
    """`exit code 2`, or `killed by SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
