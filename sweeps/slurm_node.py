"""What each node of a SLURM job does: `python -m sweeps.slurm_node FOLDER run STUDY …`.

The first starts a Ray head and says its address in FOLDER, which all share; the others start a Ray
node that joins it. When all are there, the first runs `mm1 run STUDY … --cluster ADDRESS`; when
that ends, so does everything. The exit code is the study's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sweeps.free_port import free_port
from sweeps.slurm import STOP

JOIN_SECONDS = 600.0  # from the first node's Ray to the last's
START_TRIES = 5  # a busy machine may take longer than the half minute that Ray gives itself
LOOK_SECONDS = 0.5
END_SECONDS = 20.0
LOG = "ray.log"
SAID_CHARACTERS = 2_000


def main() -> int:
    """Be the node that SLURM says this is."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    number = int(os.environ.get("SLURM_PROCID", "0"))
    count = int(os.environ.get("SLURM_NTASKS", "1"))
    place = folder / f"job-{os.environ['SLURM_JOB_ID']}"  # the batch script makes and removes it
    with tempfile.TemporaryDirectory(prefix="mm1-ray-", dir=_short()) as own:
        return _head(place, own, count, words) if number == 0 else _member(place, own, number)


def _head(place: Path, own: str, count: int, words: list[str]) -> int:
    from ray.util import get_node_ip_address

    for tried in range(1, START_TRIES + 1):
        port = free_port()
        address = f"{get_node_ip_address()}:{port}"
        options = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={own}"]
        with _ray(options, own) as ray:
            while ray.poll() is None and not _nodes(address):
                time.sleep(LOOK_SECONDS)
            if ray.poll() is None:
                return _run(place, address, count, words)
        print(f"Ray did not start, try {tried} of {START_TRIES}: {_said(own)}", flush=True)
    return 1


def _run(place: Path, address: str, count: int, words: list[str]) -> int:
    """Wait for the other nodes, run the study, and tell them when it is over."""
    _say(place / "address", address)
    deadline = time.monotonic() + JOIN_SECONDS
    while (there := _nodes(address)) < count:
        if time.monotonic() > deadline or (place / STOP).exists():
            print(f"Ray runs on {there} of {count} nodes; given up", flush=True)
            return 1
        time.sleep(LOOK_SECONDS)
    print(f"Ray runs on {count} node{'s' * (count != 1)}", flush=True)
    child = subprocess.Popen([sys.executable, "-m", "mm1", *words, "--cluster", address])
    asked = False
    while (code := child.poll()) is None:
        if not asked and (place / STOP).exists():
            child.terminate()
            asked = True
        time.sleep(LOOK_SECONDS)
    _say(place / "ended", str(code))
    deadline = time.monotonic() + END_SECONDS
    while len(list(place.glob("left-*"))) < count - 1 and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return code


def _member(place: Path, own: str, number: int) -> int:
    while not (place / "address").exists():
        if not place.exists():
            return 1  # the job has ended
        time.sleep(LOOK_SECONDS)
    address = (place / "address").read_text(encoding="utf-8")
    for tried in range(1, START_TRIES + 1):
        with _ray([f"--address={address}"], own) as ray:
            while ray.poll() is None and place.exists() and not (place / "ended").exists():
                time.sleep(LOOK_SECONDS)
            if ray.poll() is None:
                break
        node = f"the Ray node of {socket.gethostname()}"
        print(f"{node} ended, try {tried} of {START_TRIES}: {_said(own)}", flush=True)
    with contextlib.suppress(OSError):  # the job has ended
        _say(place / f"left-{number}", "")
    return 0  # the driver goes on with the nodes that are left


@contextlib.contextmanager
def _ray(options: list[str], own: str) -> Generator[subprocess.Popen[bytes]]:
    """`ray start --block` with what SLURM gave this task of the node; all of it ends."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    gpus = os.environ.get("SLURM_GPUS_ON_NODE")
    words = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
    words += ["--disable-usage-stats", *options, f"--num-cpus={cores}"]
    words += [f"--num-gpus={gpus}"] if gpus else []
    with open(Path(own) / LOG, "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _said(own: str) -> str:
    """The end of what `ray start` printed."""
    text = (Path(own) / LOG).read_text(encoding="utf-8", errors="replace")
    return text[-SAID_CHARACTERS:].strip()


def _nodes(address: str) -> int:
    """How many nodes a Ray has; 0 before it answers."""
    import ray._raylet

    host, _, port = address.rpartition(":")
    try:  # where nobody listens yet, Ray's own client would try for a minute
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return 0
    control_store: Any = ray._raylet
    try:
        infos = control_store.GcsClient(address=address).get_all_node_info(timeout=5)
    except Exception:  # RpcError and others of Ray's own: it is not there yet
        return 0
    return sum(info.state == 0 for info in infos.values())


def _short() -> str | None:
    """A folder for Ray's sockets, whose paths must be short."""
    return next((base for base in ("/tmp", "/var/tmp") if os.access(base, os.W_OK)), None)


def _say(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
