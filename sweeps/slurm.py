"""A study on SLURM: a batch job of some nodes that starts Ray on them and runs the study there.

    mm1 submit STUDY --cluster slurm:gpu --nodes 4 --sbatch --time=12:00:00 --store /shared/mm1

The batch script is kept beside the job's log, in the folder `slurm` of the store, which all nodes
must share. What a node does is `sweeps.slurm_node`.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ablations.errors import UserError
from sweeps.outside_program import ask
from sweeps.shipping import HOME

PREFIX = "slurm:"
STOP = "stop"  # file in a job's folder that asks for its end
NOTICE_SECONDS = 120  # before the time limit: workers save what they have
QUIET_SECONDS = 1.0  # between two looks at a log
ANSWER_SECONDS = 30.0
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SUSPENDED")
ALIVE = (*WAITING, "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED")


def is_slurm(cluster: str | None) -> bool:
    """Whether a `--cluster` names SLURM."""
    return cluster is not None and cluster.startswith(PREFIX)


def submit(
    cluster: str,
    study: str,
    words: Sequence[str],
    folder: Path,
    *,
    nodes: int = 1,
    options: Sequence[str] = (),
) -> tuple[str, Path]:
    """Submit `mm1 …words… --cluster ADDRESS` as a batch job; its number and its log file.

    `folder` is one that all nodes share. `options` go to sbatch as they are.

    Raises:
        UserError: there is no SLURM here, or it does not take the job, in its own words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{study}-%j.log"
    script = folder / f"{study}-{secrets.token_hex(4)}.sh"
    script.write_text(_script(cluster, study, words, folder, log, nodes), encoding="utf-8")
    # The nodes' Rays and the driver know each other by it; the environment of a job is its user's.
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    answer = _call(["sbatch", "--parsable", *options, str(script)], environment)
    job = answer.strip().partition(";")[0]
    return job, Path(str(log).replace("%j", job))


def _script(
    cluster: str, study: str, words: Sequence[str], folder: Path, log: Path, nodes: int
) -> str:
    partition = cluster.removeprefix(PREFIX)
    if partition and not re.fullmatch(r"[\w.,-]+", partition):
        raise UserError(f"--cluster {cluster!r}: {partition!r} is no name of a partition")
    node = shlex.join([sys.executable, "-m", "sweeps.slurm_node", str(folder), *words])
    return f"""\
#!/bin/bash
#SBATCH --job-name=mm1-{study}
{f"#SBATCH --partition={partition}" if partition else "# no partition was named"}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --output={_escaped(log)}
#SBATCH --signal=B:TERM@{NOTICE_SECONDS}
#SBATCH --no-requeue

export PYTHONPATH={shlex.quote(str(HOME))}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONUNBUFFERED=1
place={shlex.quote(str(folder))}/job-$SLURM_JOB_ID
mkdir -p "$place"
# To this shell alone, by the time limit or `mm1 stop`: the study saves what it has.
trap 'touch "$place/{STOP}"' TERM
srun --kill-on-bad-exit=1 --ntasks-per-node=1 --export=ALL {node} &
while kill -0 $! 2> /dev/null; do wait $!; code=$?; done
rm -rf "$place"
exit $code
"""


def _escaped(path: Path) -> str:
    """A path that a line of `#SBATCH` takes as it is. Raises `UserError` for others."""
    if re.search(r"[\s\"'\\]", str(path)):
        raise UserError(f"SLURM takes no blanks or quotes in the path of a log: {path}")
    return str(path)


def state(job: str) -> str:
    """Of a job, in SLURM's words: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, …"""
    found = re.search(r"\bJobState=(\S+)", _call(["scontrol", "--oneliner", "show", "job", job]))
    return found[1] if found else "UNKNOWN"


def follow(job: str, log: str) -> Iterator[str]:
    """What a job has printed, and prints until it ends, in pieces."""
    place, read = Path(log), 0
    while True:
        alive = state(job) in ALIVE
        if place.exists():
            with open(place, "rb") as file:
                file.seek(read)
                piece = file.read()
            read += len(piece)
            if piece:
                yield piece.decode(errors="replace")
        if not alive:
            return
        time.sleep(QUIET_SECONDS)


def stop(job: str) -> bool:
    """Ask a job to save what it has and end; whether it was still there."""
    if state(job) not in ALIVE:
        return False
    if state(job) in WAITING:
        _call(["scancel", job])
    else:  # the script alone, which asks the driver
        _call(["scancel", "--batch", "--signal=TERM", job])
    return True


def _call(words: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """What a command of SLURM prints. Raises `UserError` with what it says."""
    done = ask(
        words,
        name=f"SLURM's {words[0]}",
        absent=f"there is no {words[0]} here: {PREFIX}… is for a machine of a SLURM cluster",
        seconds=ANSWER_SECONDS,
        environment=environment,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"{words[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout
