"""The Ray that a run is on: an embedded one, a cluster's, or one that this process already has.

An embedded Ray listens on the loopback interface alone, offers no metrics, and lives in a private
folder with a short path that is gone when it ends. It is tried again where it does not start, and
its log files are kept only where it was to blame.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ablations.errors import UserError
from ablations.plan import Plan
from sweeps.free_port import free_port
from sweeps.offer import Node, offered
from sweeps.shipping import shipment
from sweeps.store import Store

START_TRIES = 3
# A busy machine takes longer than the half minute that Ray gives itself, and to begin anew makes
# it busier: a try goes on while the processes that it started live, all tries for so long.
START_SECONDS = 240.0
TOLD_SECONDS = 30.0  # after which it is said that Ray takes long
# The kernel's limit on a socket's path is 107 characters (macOS: 103). Ray's sockets are at
# /session_2026-12-01_06-40-38_783882_1234567/sockets/plasma_store below its folder.
FOLDER_CHARACTERS = 103 - 63
PREFIX = "mm1-ray-"
ABANDONED_SECONDS = 3600.0  # a folder without its lock was left between two system calls
KEPT_BYTES = 200_000  # of the end of each of Ray's log files
PROBE_SECONDS = 5.0  # how often a cluster is asked whether it is there
SILENT_SECONDS = 30.0  # and after how long it is taken for gone; Ray itself would wait for ever

# Before Ray is imported: no report to its makers, and no message about accelerators.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Ray replaces 127.0.0.1 by the machine's outer address, and then listens on all interfaces, unless
# it believes itself on macOS or Windows, where that would open the firewall's dialogue.
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
    # Of what starts on a busy machine: a raylet's agents, and its workers.
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_worker_register_timeout_seconds": "600",
    # Else the driver waits, for ever where they are late, for workers that our actors, which have
    # variables of their own, do not use.
    "RAY_prestart_worker_first_driver": "0",
}

# Of `ray._private.services`: what a starting Ray asks for its node, and starts its raylet by.
WAITS, STARTS = "get_node", "start_raylet"
PRINTS = "_worker_logs_enabled"  # of `ray._private.worker`: whether a driver prints such things


class RayEndedError(Exception):
    """Ray itself is gone, in one line; what runs on it is lost, what was finished is not."""


@dataclass
class RaySession:
    """A connected Ray."""

    cores: int
    embedded: bool
    folder: Path | None = None  # of an embedded Ray
    address: str = ""  # of a cluster's control store, HOST:PORT
    _asked: float = field(default_factory=time.monotonic)
    _answered: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Look whether Ray is still there; to be called often.

        Raises:
            RayEndedError: it is not.
        """
        from ray._private import worker as ray_worker

        node = ray_worker._global_node
        for kind, process in node.dead_processes() if node is not None else []:
            if kind in ("raylet", "gcs_server"):
                raise RayEndedError(f"Ray's process {kind} ended ({_how(process.returncode)})")
        now = time.monotonic()
        if self.address and now - self._asked > PROBE_SECONDS:
            self._asked = now
            if _answers(self.address):
                self._answered = time.monotonic()
                if not _own_node_is_alive():
                    raise RayEndedError("the Ray node that this process is connected to has ended")
            elif now - self._answered > SILENT_SECONDS:
                raise RayEndedError(
                    f"the Ray cluster at {self.address} has not answered for "
                    f"{now - self._answered:.0f} s"
                )

    def worker_output(self, pid: int) -> str:
        """The end of what a worker's process wrote to its standard error; empty if unknown."""
        if self.folder is None:
            return ""
        found = sorted(self.folder.glob(f"r/session_2*/logs/worker-*-{pid}.err"))
        return _end_of(found[-1], 10_000).decode(errors="replace").strip() if found else ""

    def keep_logs(self, place: Path) -> Path | None:
        """Copy the ends of an embedded Ray's log files to `place`; None where there are none."""
        return None if self.folder is None else _keep_logs(self.folder, place)


def logs_place(store: Store, study: str) -> Path:
    """Where the log files of a Ray that made trouble are kept: of a study's last such run."""
    return store.local / "ray-logs" / quote(study, safe="")


@contextlib.contextmanager
def ray_session(
    plan: Plan, store: Store, cluster: str | None, workers: int | None
) -> Generator[RaySession]:
    """A Ray to run on, that this process already has, the cluster's, or an embedded one.

    Called from the main thread: the kernel ends Ray's processes with the thread that started
    them, which is why `kill -9` of the driver leaves nothing behind.

    Raises:
        UserError: the cluster cannot be used, or an embedded Ray does not start.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield RaySession(cores_now(), embedded=False)
        return
    if cluster is None:
        cores = max(workers or 1, len(os.sched_getaffinity(0)))
        with embedded_ray(cores, logs_place(store, plan.study)) as session:
            yield session
        return
    with private_folder() as folder, ray_writes_to(folder / "driver.err"):
        _connect(plan, cluster)
        address = "" if "://" in cluster else ray.get_runtime_context().gcs_address
        try:
            yield RaySession(cores_now(), embedded=False, address=address)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def connected(cluster: str | None, store: Path) -> Generator[list[Node]]:
    """The nodes of a cluster, or of this machine; `store` is where an embedded Ray keeps logs.

    Raises:
        UserError: the cluster cannot be used.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield offered()
        return
    if cluster is None:
        with embedded_ray(len(os.sched_getaffinity(0)), store / "ray-logs"):
            yield offered()
        return
    with private_folder() as folder, ray_writes_to(folder / "driver.err"):
        _connect(None, cluster)
        try:
            yield offered()
        finally:
            ray.shutdown()


def cores_now() -> int:
    """The cores that the connected Ray has at this moment."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


# -- a cluster's ---------------------------------------------------------------------------------


def _connect(plan: Plan | None, cluster: str) -> None:
    """Connect to a cluster, with the code of a plan that is to be run."""
    import ray

    host, _, port = cluster.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        _refuse_silence(cluster)  # Ray itself would try for minutes
    logs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the job has shipped the code
    try:
        if in_job or plan is None:
            ray.init(address=cluster, **logs)
        else:
            with shipment(plan) as code:
                ray.init(address=cluster, runtime_env={"working_dir": str(code)}, **logs)
    except UserError:
        raise
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, its own kinds, …
        raise UserError(f"cannot use the Ray cluster at {cluster!r}: {_first(error)}") from error


def _refuse_silence(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot use the Ray cluster at {address!r}: {error}") from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _own_node_is_alive() -> bool:
    import ray

    own = ray.get_runtime_context().get_node_id()
    return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own)


# -- an embedded one -----------------------------------------------------------------------------


@contextlib.contextmanager
def embedded_ray(cores: int, logs: Path) -> Generator[RaySession]:
    """Start a Ray for this process alone; `logs` gets its log files if it does not start.

    Raises:
        UserError: it does not start, or there is no folder for it.
    """
    import ray

    # The token keeps other users of the machine out; it lives and dies with this process instead
    # of in the home folder. One a process: Ray reads it once, and a second Ray must know it too.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with (
        private_folder() as folder,
        ray_writes_to(folder / "driver.err"),
        _environment(LOOPBACK),
    ):
        until = time.monotonic() + START_SECONDS
        for number in range(1, START_TRIES + 1):
            try:
                with waiting_for_node(folder, until):
                    _start(cores, folder / "r")
                break
            except Exception as error:  # Ray raises bare Exception, among others
                with contextlib.suppress(Exception):
                    ray.shutdown()
                _end_processes_of(folder)
                if number == START_TRIES:
                    kept = _keep_logs(folder, logs)
                    raise UserError(
                        f"Ray did not start in {START_TRIES} tries ({_first(error)}); is the "
                        f"machine too busy? Its log files are in {kept}"
                    ) from error
        try:
            yield RaySession(cores_now(), embedded=True, folder=folder)
        finally:
            with contextlib.suppress(Exception):  # where Ray is gone already
                ray.shutdown()
            _end_processes_of(folder)


def _start(cores: int, folder: Path) -> None:
    """`ray.init`, on loopback alone."""
    import ray
    from ray._private import ray_constants
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _Fixed()
    known = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # read already, if somebody imported Ray before
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=100 * 2**20,  # results go through the store
            job_config=job,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known


@contextlib.contextmanager
def waiting_for_node(folder: Path, until: float) -> Generator[None]:
    """Have Ray wait for its own node for as long as its raylet lives, until a time."""
    from ray._private import services

    ask, start, began, told = services.get_node, services.start_raylet, time.monotonic(), False

    def start_raylet(*words: Any, **options: Any) -> Any:
        _say_unused_ports(node=words[2], session=words[11])
        return start(*words, **{**options, "runtime_env_agent_port": free_port("127.0.0.1")})

    def get_node(*words: Any) -> Any:
        nonlocal told
        while True:
            try:
                return ask(*words)
            except RuntimeError:  # it is not there yet
                now = time.monotonic()
                if now > until or not _processes_of(folder, b"/raylet/raylet"):
                    raise
                if now - began > TOLD_SECONDS and not told:
                    told = True
                    print(
                        f"mm1: Ray has not started in {now - began:.0f} s (load "
                        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores); it is waited for",
                        file=sys.stderr,
                    )
                time.sleep(0.2)

    setattr(services, WAITS, get_node)
    setattr(services, STARTS, start_raylet)
    try:
        yield
    finally:
        setattr(services, WAITS, ask)
        setattr(services, STARTS, start)


def _say_unused_ports(node: str, session: str) -> None:
    """Say in the place of a raylet's agent that nobody listens for metrics or a dashboard.

    The raylet waits a quarter of a minute for the agent to say so, and then aborts: too short for
    a process that starts on a busy machine.
    """
    _raylet: Any = importlib.import_module("ray._raylet")  # of Cython, without types
    for name in (
        _raylet.METRICS_AGENT_PORT_NAME,
        _raylet.METRICS_EXPORT_PORT_NAME,
        _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    ):
        _raylet.persist_port(session, node, name, -1)


class _Fixed(list[str]):
    """No folders for the beginning of the workers' search path.

    Ray puts the working directory and the script's before what PYTHONPATH says (`import_paths`),
    where a folder `sweeps` of a user would hide ours.
    """

    def extend(self, folders: object) -> None:
        """Stay empty."""


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def ray_writes_to(path: Path) -> Generator[None]:
    """What libraries in C++ write to the standard error goes to a file, not to the terminal.

    What Ray's own threads print here, the last lines of a raylet that died, goes nowhere.
    """
    from ray._private import worker as ray_worker

    setattr(ray_worker, PRINTS, False)
    sys.stderr.flush()
    kept, python = os.dup(2), sys.stderr
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        ours = python.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a notebook's, a test's
        ours = False
    if ours:
        sys.stderr = open(  # noqa: SIM115
            kept, "w", buffering=1, encoding=python.encoding, errors=python.errors, closefd=False
        )
    try:
        yield
    finally:
        if ours:
            sys.stderr.flush()
            sys.stderr = python
        os.dup2(kept, 2)
        os.close(kept)
        setattr(ray_worker, PRINTS, True)


# -- its folder ----------------------------------------------------------------------------------


@contextlib.contextmanager
def private_folder() -> Generator[Path]:
    """A new folder that nobody else may enter, short enough for sockets, removed afterwards.

    What runs left that were killed is removed too: the kernel has released their locks.

    Raises:
        UserError: there is no place for it.
    """
    folder = _new_folder()
    lock = os.open(folder / "lock.new", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: it is never swept
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / "lock.new").rename(folder / "lock")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _bases() -> Iterator[str]:
    """Folders for temporary files, the user's choice first."""
    with contextlib.suppress(OSError):
        yield tempfile.gettempdir()
    yield from filter(None, (os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm"))


def _new_folder() -> Path:
    room = FOLDER_CHARACTERS - len(f"/{PREFIX}12345678/r")
    for base in _bases():
        if len(os.fsencode(base)) <= room:
            with contextlib.suppress(OSError):  # not there, or not to be written to
                _sweep(Path(base))
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).absolute()  # mode 0700
    raise UserError(
        f"Ray's sockets need a folder with a path of at most {room} characters, and none of "
        f"{', '.join(dict.fromkeys(_bases()))} is one that can be written to; set TMPDIR to one"
    )


def _sweep(base: Path) -> None:
    """Remove what killed runs of this user left in a folder."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or folder.is_symlink():
                continue
            if not (folder / "lock").exists():
                if time.time() - status.st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _keep_logs(folder: Path, place: Path) -> Path | None:
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.mkdir(parents=True)
        for path in [folder / "driver.err", *folder.glob("r/session_2*/logs/*.*")]:
            if path.is_file() and (end := _end_of(path, KEPT_BYTES)):
                (place / path.name).write_bytes(end)
        return place
    return None


def _end_of(path: Path, size: int) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size)
    return b""


def _end_processes_of(folder: Path) -> None:
    """Kill what Ray left running: every process of ours that was started with this folder."""
    for process in _processes_of(folder):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _processes_of(folder: Path, program: bytes = b"") -> list[int]:
    """Our processes that were started with a folder, and whose program has a text in its path."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes()
            is_program = program in words.partition(b"\0")[0]
            ours = os.fsencode(f"{folder}/") in words and place.stat().st_uid == os.getuid()
            if ours and is_program:
                found.append(int(place.name))
    return found


def _how(code: int | None) -> str:
    """How a process ended, by its exit code as `subprocess` gives it."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _first(error: BaseException) -> str:
    """The first line of an error, not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
