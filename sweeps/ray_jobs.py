"""Ray's Jobs API, with everything that can be wrong with a cluster in one line."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

from ablations.errors import UserError
from ablations.shown_text import shown_url

START_SECONDS = 60.0  # a cluster that has just been started needs a moment to take a job
REACH_SECONDS = 10.0
DASHBOARD_PORT = 8265
ADVICE = "give the address of its dashboard, like http://127.0.0.1:8265"


def client(cluster: str) -> Any:
    """A client of the cluster whose dashboard has the address `cluster`.

    Raises:
        UserError: nobody answers there within 10 s, it wants a token, its Ray is another version.
    """
    _refuse_silence(cluster)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    place = f"cannot use the Ray cluster at {shown_url(cluster)}"
    try:
        found = JobSubmissionClient(cluster)
        there = found._do_request("GET", "/api/version").json().get("ray_version")
    except AuthenticationError as error:
        token = "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        raise UserError(
            f"{place}: it wants a token, and "
            + ("the one here is not it" if _has_token() else f"none is set: set {token}")
            + f" ({_first_line(error)})"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSError
        raise UserError(f"{place}: {_first_line(error)}; {ADVICE}") from error
    if there != ray.__version__:
        raise UserError(
            f"{place}: it runs Ray {there}, and here is Ray {ray.__version__}; both must have the "
            "same"
        )
    logging.getLogger("ray").setLevel(logging.WARNING)  # no line per package that is sent
    return found


def _has_token() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def _refuse_silence(cluster: str) -> None:
    """Raise `UserError` where nothing listens; Ray itself would wait for minutes."""
    parts = urlsplit(cluster if "://" in cluster else f"http://{cluster}")
    try:
        host = parts.hostname or ""
        port = parts.port or (DASHBOARD_PORT if parts.scheme == "http" else 443)
    except ValueError as error:
        raise UserError(f"{shown_url(cluster)} is no address of a cluster ({error})") from error
    if parts.scheme not in ("http", "https"):
        return  # an address of Ray's own, such as `ray://…` or `auto`, which it looks up itself
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot reach a Ray cluster at {shown_url(cluster)}: tried {host} port {port} for up "
            f"to {REACH_SECONDS:.0f} s: {error}; {ADVICE}"
        ) from error


def submit(found: Any, **job: Any) -> str:
    """Submit a job; a cluster that has just been started is asked again. Raises `UserError`."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return found.submit_job(**job)
        except RuntimeError as error:
            if "try again" not in str(error) or time.monotonic() > deadline:
                raise UserError(
                    f"the cluster does not take the job: {_first_line(error)}"
                ) from error
            time.sleep(1.0)
        except OSError as error:  # the server went away
            raise UserError(f"the cluster does not take the job: {error}") from error


def command(words: list[str]) -> str:
    """`python -m …`, with this environment's python where the cluster has it at the same path."""
    python = f"$(command -v {shlex.quote(sys.executable)} || echo python)"
    return f"{python} -m {shlex.join(words)}"


def outcome(found: Any, job: str, seconds: float) -> list[str]:
    """The lines that a short job printed. Raises `UserError` where it does not end in time."""
    deadline = time.monotonic() + seconds
    try:
        while not found.get_job_status(job).is_terminal():
            if time.monotonic() > deadline:
                info = found.get_job_info(job)
                found.stop_job(job)
                raise UserError(
                    f"the cluster did not answer within {seconds:.0f} s: its job {job} is "
                    f"{info.status}, {' '.join(str(info.message).split())}"
                )
            time.sleep(0.5)
        return found.get_job_logs(job).splitlines() or [str(found.get_job_info(job).message)]
    except (OSError, RuntimeError) as error:
        raise UserError(f"the cluster does not answer any more: {_first_line(error)}") from error


def state(found: Any, job: str) -> str:
    """Of a job, in Ray's words: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.

    Raises:
        UserError: the cluster has no such job, as after it was started anew.
    """
    try:
        return str(found.get_job_status(job).value)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the cluster does not know job {job}: {_first_line(error)}") from error


def follow(found: Any, job: str) -> Iterator[str]:
    """What a job has printed, and prints until it ends, in pieces."""
    loop = asyncio.new_event_loop()
    pieces: AsyncIterator[str] = found.tail_job_logs(job)

    async def one() -> str | None:
        return await anext(pieces, None)

    try:
        while (piece := loop.run_until_complete(one())) is not None:
            yield piece
    except (OSError, RuntimeError) as error:
        raise UserError(f"the cluster does not answer any more: {_first_line(error)}") from error
    finally:
        loop.close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
