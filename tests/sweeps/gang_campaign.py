"""A campaign over studies whose trainings are gangs, on a cluster of nodes of this machine.

Each training is of two processes on two nodes; drivers come and go while the cluster stays. What is
killed: a process of a gang, a driver, a node (another one comes), or the cluster's control store,
and with it the cluster (another one is started).

    python tests/sweeps/gang_campaign.py 100        # kills
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from campaign import PROGRAMS, Campaign, main
from killing import processes_below
from noop_stage import HERE

from sweeps.ray_session import LOOPBACK, SETTINGS

# Told how many nodes there are to be, it says its address once there are. 1: one more, for one that
# was killed, which the others notice after some seconds.
CLUSTER = f"""
import sys
sys.path.insert(0, {HERE!r})
from on_a_cluster import a_cluster, a_node, alive
with a_cluster() as cluster:
    for line in sys.stdin:
        nodes = int(line)
        for _ in range(1 if nodes == 1 else nodes - alive()):
            a_node(cluster, num_cpus=1)
        print("address", cluster.address, flush=True)
"""
GANG_TARGETS = ("member", "driver", *PROGRAMS)
NODES = 3  # the head, which has no cores, and two that have one each


@dataclass
class GangCampaign(Campaign):
    """A campaign on a cluster, which is there from the first driver until `close`."""

    hosts: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.environment |= SETTINGS | LOOPBACK | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._cluster: subprocess.Popen[str] | None = None

    def command(self, number: int) -> list[str]:
        """What starts a driver, on a cluster that has all its nodes."""
        return [*super().command(number), self._whole_cluster()]

    def close(self) -> None:
        """End the cluster and all that belongs to it."""
        if self._cluster is not None:
            for pid in [self._cluster.pid, *processes_below(self._cluster.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._cluster.wait()
        self._cluster = None

    def _whole_cluster(self, nodes: int = NODES) -> str:
        """The address of the cluster, once it has its nodes."""
        if self._cluster is None:
            with open(self.folder / "cluster.txt", "ab") as said:
                self._cluster = subprocess.Popen(
                    [sys.executable, "-c", CLUSTER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    encoding="utf-8",
                    env=self.environment,
                )
        asked, answers = self._cluster.stdin, self._cluster.stdout
        assert asked is not None
        assert answers is not None
        print(nodes, file=asked, flush=True)
        for line in answers:
            if line.startswith("address "):
                return line.split()[1]
        raise RuntimeError((self.folder / "cluster.txt").read_text(encoding="utf-8")[-2000:])

    def _processes(self, target: str, driver: subprocess.Popen) -> list[int]:
        if target == "driver":
            return [driver.pid]
        if self._cluster is None:
            return []
        below = processes_below(self._cluster.pid)
        if target == "member":
            told = Path(self.store.root).glob("scratch/*/pid-[01]")
            return [
                pid for pid in (int(one.read_text("utf-8") or 0) for one in told) if pid in below
            ]
        found = sorted(pid for pid, name in below.items() if name.endswith(PROGRAMS[target]))
        return found[1:] if target == "raylet" else found  # the first is the head's

    def _end(self, target: str, driver: subprocess.Popen) -> bool:
        ended = super()._end(target, driver)
        if ended and target in PROGRAMS:
            time.sleep(self.random.uniform(1.0, 4.0))
            if target == "raylet":
                self._whole_cluster(1)
            else:
                self.close()
        return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], GangCampaign, GANG_TARGETS))
