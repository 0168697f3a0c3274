"""An object store that goes away and comes back while a study runs."""

from __future__ import annotations

import logging
import threading

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from object_store import account

from ablations.errors import UserError
from sweeps.objects import open_objects
from sweeps.patience import patient


@pytest.fixture
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with account(f"http://{host}:{port}"):
        fsspec.filesystem("s3").makedirs("patience", exist_ok=True)
        yield server
    server.stop()


def test_a_request_waits_for_the_server_and_tells_it_once(server):
    said: list[str] = []
    objects = patient(open_objects("s3://patience/store"), said.append)
    assert objects.create("key", b"1")
    assert said == []
    port = server.get_host_and_port()[1]
    server.stop()
    again = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    threading.Timer(1.0, again.start).start()
    assert objects.create("other", b"2")
    assert objects.read("key") == b"1"
    assert not objects.create("key", b"3")
    again.stop()
    assert all("does not answer" in one for one in said)
    assert len(said) <= 1


def test_patience_ends_in_one_line(server):
    objects = patient(open_objects("s3://patience/store"), lambda text: None, seconds=0.0)
    server.stop()
    with pytest.raises(UserError, match="s3://patience/store has not answered for"):
        objects.write("key", b"1")


def test_what_is_no_silence_is_not_waited_for(server):
    objects = patient(open_objects("s3://patience/store"), pytest.fail)
    with pytest.raises(FileNotFoundError):
        objects.read("nothing")
    assert objects.children("nothing") == []
