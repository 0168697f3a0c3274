"""kill -9 of whatever belongs to a run, at random moments, until a study is done all the same.

A campaign starts a driver as a user would, ends one of its processes after another, starts it again
where it ended, and compares what is in the store then with a run that nobody disturbed:

- every stage is there, and nothing that was finished was begun again,
- results and outputs are the same to the bit,
- `mm1 fsck` finds no damage.

    python tests/sweeps/campaign.py 100        # kills
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from killing import processes_below, worker_pids
from noop_stage import HERE, a_plan, having
from stateful_stage import LOG

from ablations.identity import code_fingerprint
from ablations.plan import Plan
from ablations.resources import Resources
from ablations.workload import Code
from sweeps import fsck
from sweeps.store import Store
from sweeps.worker import execute

PROGRAMS = {"raylet": "raylet/raylet", "control store": "gcs/gcs_server"}
TARGETS = ("worker", "driver", *PROGRAMS)
LOOK_SECONDS = 0.05
STUCK_SECONDS = 1200.0  # of a driver that is not disturbed: it does not go on
MOST_STARTS = 20  # of a driver without any kill between: it does not come to an end
DRIVER = f"""
import sys
sys.path.insert(0, {HERE!r})
from campaign import study
from sweeps.run import run_plan
store, number, steps, hosts, log, uri, *cluster = sys.argv[1:]
where = {{"cluster": cluster[0]}} if cluster else {{"workers": 2}}
plan = study(int(number), int(steps), int(hosts))
sys.exit(run_plan(plan, store, data="data", mlflow_uri=uri, **where,
                  environment=lambda shape: {{{LOG!r}: log}}))
"""


def study(number: int, steps: int, hosts: int = 1) -> Plan:
    """Two arms, two seeds, of each number others; a training is on so many hosts."""
    arms = {
        name: {"rate": rate, "steps": steps, "seconds": 0.02}
        for name, rate in (("slow", 0.01), ("fast", 0.1))
    }
    plan = a_plan(f"campaign-{number}", arms, seeds=(2 * number, 2 * number + 1))
    stages = {}
    for stage in plan.stages.values():
        function = stage.run.rpartition(":")[2]
        stages[stage.id] = having(
            stage,
            run=f"stateful_stage:{function}",
            code=Code(module="stateful_stage", function=function),
            code_fingerprint=code_fingerprint("stateful_stage", function),
            **({"resources": Resources(hosts=hosts)} if function == "train" else {}),
        )
    return plan.model_copy(update={"stages": stages})


@dataclass
class Campaign:
    """Kills, and what was seen of them.

    `away` are further targets by name: a function that ends it, and one that starts it again.
    """

    hosts: ClassVar[int] = 1  # of a training
    folder: Path
    seed: int
    steps: int = 60
    uri: str = "off"
    away: dict[str, tuple[Callable[[], None], Callable[[], None]]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    starts: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.store = Store(self.folder / "store")
        self.log = self.folder / "begun.txt"
        self.environment = {**os.environ, "RAY_memory_monitor_refresh_ms": "0"}
        self.attempts: dict[str, str] = {}  # finished stage → the attempt that was its result

    def run(self, targets: Sequence[str]) -> list[Plan]:
        """End these, one after the other, over as many studies as that takes; the studies."""
        left, plans = list(targets), []
        while left or not plans:
            plans.append(study(len(plans), self.steps, self.hosts))
            self._finish(plans[-1], len(plans) - 1, left)
            if self.wrong:
                break
        return plans

    def command(self, number: int) -> list[str]:
        """What starts the driver of the study of a number."""
        what = [str(one) for one in (number, self.steps, self.hosts)]
        return [sys.executable, "-c", DRIVER, self.store.root, *what, str(self.log), self.uri]

    def close(self) -> None:
        """End what is still there when it is over."""

    def _finish(self, plan: Plan, number: int, left: list[str]) -> None:
        """Run a study to its end, ending what is `left` to be ended on the way."""
        undisturbed = 0
        while True:
            before = len(self.killed)
            code = self._drive(number, left)
            self._look()
            if self.wrong:
                return
            if code == 0 and len(self.store.done(plan.stages)) == len(plan.stages):
                return
            undisturbed = undisturbed + 1 if len(self.killed) == before else 0
            if undisturbed == MOST_STARTS:
                self.wrong.append(f"{plan.study} is not finished: exit code {code}")
                return

    def _drive(self, number: int, left: list[str]) -> int:
        with open(self.folder / "driver.txt", "ab") as said:
            driver = subprocess.Popen(
                self.command(number),
                cwd=self.folder,
                stdout=said,
                stderr=said,
                env=self.environment,
            )
        self.starts += 1
        finished, heard = len(self.attempts), time.monotonic()
        while driver.poll() is None:
            is_under_way = left and worker_pids(self.store)
            time.sleep(self.random.uniform(0.0, 1.0) if is_under_way else LOOK_SECONDS)
            self._look()
            if is_under_way and self._end(left[0], driver):
                self.killed.append(left.pop(0))
                heard = time.monotonic()
            if len(self.attempts) > finished:
                finished, heard = len(self.attempts), time.monotonic()
            if time.monotonic() - heard > STUCK_SECONDS:
                self.wrong.append(f"no stage was finished for {STUCK_SECONDS:.0f} s")
                driver.kill()
                break
        return driver.wait()

    def _end(self, target: str, driver: subprocess.Popen) -> bool:
        """Whether there was such a process to be ended."""
        if target in self.away:
            end, start = self.away[target]
            end()
            threading.Timer(self.random.uniform(1.0, 5.0), start).start()
            return True
        found = self._processes(target, driver)
        if not found or driver.poll() is not None:
            return False
        try:
            os.kill(self.random.choice(sorted(found)), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _processes(self, target: str, driver: subprocess.Popen) -> list[int]:
        if target == "driver":
            return [driver.pid]
        if target == "worker":
            return worker_pids(self.store)
        below = processes_below(driver.pid)
        return [pid for pid, name in below.items() if name.endswith(PROGRAMS[target])]

    def _look(self) -> None:
        """Note what is finished by now; it must stay the same."""
        for path in sorted(Path(self.store.root).glob("stages/*/*/done.json")):
            stage = path.parent.name
            attempt = self.store.done_record(stage).attempt
            if self.attempts.setdefault(stage, attempt) != attempt:
                self.wrong.append(f"{stage} was finished twice")

    def differences(self, plans: Sequence[Plan]) -> list[str]:
        """What is not as if nobody had disturbed anything."""
        calm = Store(self.folder / "undisturbed")
        for plan in plans:
            for stage in plan.stages.values():
                execute(calm, stage, self.folder, threading.Event(), "undisturbed")
        stages = {id_: stage for plan in plans for id_, stage in plan.stages.items()}
        found = list(self.wrong)
        found += [
            f"{stages[one].label} is missing" for one in set(stages) - self.store.done(stages)
        ]
        for id_, stage in stages.items():
            if not (self.store.is_done(id_) and calm.is_done(id_)):
                continue
            if not self.store.rows([id_]).equals(calm.rows([id_])):
                found.append(f"{stage.label}: other results")
            files = [
                {
                    name: sum_
                    for name, sum_ in store.done_record(id_).files.items()
                    if "output" in name
                }
                for store in (self.store, calm)
            ]
            if files[0] != files[1]:
                found.append(f"{stage.label}: other output")
        found += self._begun_again()
        found += [
            f"damaged: {one.place} {one.what}"
            for one in fsck.examine(self.store)
            if one.kind == "damage"
        ]
        return found

    def _begun_again(self) -> list[str]:
        """Stages that were begun after they were finished."""
        ended = {
            path.parent.name: path.stat().st_mtime
            for path in Path(self.store.root).glob("stages/*/*/done.json")
        }
        begun = [line.split() for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [
            f"{stage} was begun {float(at) - ended[stage]:.2f} s after it was finished"
            for stage, at in begun
            if stage in ended and float(at) > ended[stage]
        ]


def shuffled(targets: Sequence[str], kills: int, seed: int) -> list[str]:
    """Each target about equally often, in an order that follows from the seed."""
    order = [targets[number % len(targets)] for number in range(kills)]
    random.Random(seed).shuffle(order)
    return order


def main(
    words: Sequence[str],
    kind: Callable[[Path, int], Campaign] = Campaign,
    targets: Sequence[str] = TARGETS,
) -> int:
    """Run a campaign of so many kills, by some seed, and say what came of it."""
    kills, seed = (int(word) for word in [*words, *("10", "0")[len(words) :]])
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = kind(Path(folder), seed)
        try:
            plans = campaign.run(shuffled(targets, kills, seed))
        finally:
            campaign.close()
        found = campaign.differences(plans)
    counts = ", ".join(f"{n} × {name}" for name, n in Counter(campaign.killed).items())
    stages = sum(len(plan.stages) for plan in plans)
    print(
        f"{len(campaign.killed)} kills ({counts}), {campaign.starts} drivers, {len(plans)} studies "
        f"of {stages} stages, {time.monotonic() - began:.0f} s: "
        + ("; ".join(found) or "nothing lost, nothing run twice, the same to the bit")
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
