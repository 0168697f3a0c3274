"""A command that two processes run together, each as a process of a gang would run it."""

from __future__ import annotations

import copy
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ablations.command import gang
from ablations.stage import Gang, StageStopped

SCRIPT = """
rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
assert os.environ["PET_NODE_RANK"] == os.environ["JAX_PROCESS_ID"] == str(rank)
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
assert os.environ["JAX_COORDINATOR_ADDRESS"] == "%s:%d" % address
print("I am", rank, flush=True)
from multiprocessing.connection import Client, Listener
if rank == 0:
    with Listener(address, authkey=b"k") as listener, listener.accept() as other:
        total = 1 + other.recv()
    (scratch / "checkpoint").write_text("of process 0", encoding="utf-8")
    log(step=1, loss=float(total), val={"accuracy": total})
else:
    while True:
        try:
            with Client(address, authkey=b"k") as first:
                first.send(41)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    print(json.dumps({"step": 9, "loss": 9.0}))
    while not (scratch / "checkpoint").exists():
        time.sleep(0.05)
"""


@pytest.fixture
def together(step):
    """`together(script)`: both processes run a script as a step; what each gave or raised."""
    stop = threading.Event()

    def run(script, **said):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        first, other = step, copy.copy(step)
        first.script(script)
        first.context.gang, first.context.stop = Gang(coordinator, 2, 0), stop
        other.context = copy.copy(first.context)
        other.context.gang = Gang(coordinator, 2, 1)
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(one.run, **said) for one in (other, first)]
            run.begun(first.context)
        return [one.exception() or one.result() for one in running]

    run.begun = lambda context: None
    run.stop = stop
    return run


def test_both_processes_find_each_other_and_the_first_has_the_results(together):
    other, rows = together(SCRIPT)
    assert other == []  # whatever it prints
    assert {row.value for row in rows} == {42}


def test_a_stop_ends_both(together):
    def begun(context):
        while len(list(context.scratch.glob("command/scratch/ready-*"))) < 2:
            pass
        together.stop.set()

    together.begun = begun
    ended = together("""
        (scratch / ("ready-" + os.environ["RANK"])).touch()
        time.sleep(600)
    """)
    assert [type(one) for one in ended] == [StageStopped, StageStopped]


def test_a_process_whose_first_does_not_begin_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gang, "MOST_SECONDS", 0.2)
    gang.begin(tmp_path, Path("an attempt before"))
    with pytest.raises(TimeoutError, match="process 1 has not begun"):
        gang.wait_for_first(tmp_path, Path("this one"), lambda: False)
