"""Starts a command and ends all that it started, however whoever asked for it may end.

    python -I -S guard.py CONTROL STATUS PROGRAM ARGUMENT…

CONTROL is a pipe: `T` in it asks the command to stop (SIGTERM to its group), `K` ends everything
at once, and so does its end, which comes with the death of the process that holds the other side,
also by SIGKILL. STATUS takes one line of JSON: `{"pid": …}` when the command runs, and then
`{"code": …}` (negative: the signal), or `{"cannot": …}` where it could not be started.

What the command started is found as its process group and, on Linux, as whatever has become a
child of this process because its own parent is gone. Nothing but the standard library, and little
of that, because it starts before every command.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # prctl(2)
_LINGER_SECONDS = 1.0  # for helpers of the command that end by themselves


def main() -> None:
    """Run the command of the arguments to its end, or to ours."""
    control, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(control, False)
    os.set_inheritable(status, False)
    prctl = _prctl()
    prctl(_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told, tell = os.pipe()  # closed by a successful exec
    child = os.fork()
    if child == 0:
        os.close(told)
        os.setsid()
        prctl(_DEATH_SIGNAL, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            os.execvp(sys.argv[3], sys.argv[3:])
        except OSError as error:
            os.write(tell, (error.strerror or "unknown").encode())
        os._exit(127)
    os.close(tell)
    for stream in (1, 2):  # or its readers would wait for us
        os.close(stream)
    cannot = os.read(told, 1000).decode()
    if cannot:
        _say(status, {"cannot": cannot})
        return
    _say(status, {"pid": child})
    code = None
    while code is None:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
        code = _reaped(child)
        if code is None and control in ready:
            asked = os.read(control, 1)
            if asked == b"T":
                _signal_group(child, signal.SIGTERM)
            else:
                _end(child, at_once=True)
    _end(child, at_once=False)
    _say(status, {"code": code})


def _say(status: int, what: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(status, json.dumps(what).encode() + b"\n")


def _reaped(child: int) -> int | None:
    """The exit code of the child if it has ended; others that have are only cleared away."""
    code = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(ended)


def _end(child: int, *, at_once: bool) -> None:
    """Kill the group and all descendants; unless at once, after they had a moment to end."""
    until = time.monotonic() + _LINGER_SECONDS
    while not at_once and _living(child) and time.monotonic() < until:
        time.sleep(0.01)
        _clear()
    while True:
        _signal_group(child, signal.SIGKILL)
        left = _descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01 if at_once or left else 0)
        if at_once or not left:
            return  # at once: the loop that called asks again until the child is gone
        _clear()


def _clear() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _living(child: int) -> bool:
    if _descendants(os.getpid()):
        return True
    try:
        os.killpg(child, 0)
    except OSError:
        return False
    return True


def _signal_group(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


def _descendants(pid: int) -> list[int]:
    """All processes below one, on Linux; elsewhere none is known."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():  # noqa: PTH208, PTH112
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    words = file.read().rpartition(b")")[2].split()  # state, parent, …
                if words[0] not in (b"Z", b"X"):
                    children.setdefault(int(words[1]), []).append(int(name))
            except (OSError, IndexError, ValueError):  # it has ended
                continue
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _prctl() -> Callable[..., int]:
    if not sys.platform.startswith("linux"):
        return lambda *_: 0
    import ctypes

    return ctypes.CDLL(None).prctl


if __name__ == "__main__":
    main()
