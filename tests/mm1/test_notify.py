"""Who is told what of a study, and that whoever cannot be told holds up nothing."""

from __future__ import annotations

import dataclasses
import http.server
import json
import threading

import pytest
from watched_views import CLAIM, STAGE, a_view

from ablations.errors import UserError
from mm1.notify import News, Notifying, send, shown_target, targets


@pytest.fixture
def server():
    """An HTTP server of this machine; what was posted to it, and where."""
    posted: list[tuple[str, dict]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            self.send_response(500 if "broken" in self.path else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}", posted
        one.shutdown()


def test_the_end_of_a_run_is_posted_and_given_to_commands(server, tmp_path, capfd):
    address, posted = server
    told = tmp_path / "told"
    given = [f"{address}/T0/secret", f"cat > {told}"]
    with Notifying("demo", str(tmp_path / "store"), targets(given)) as notifying:
        notifying.ended(0)
    ((path, message),) = posted
    assert path == "/T0/secret"
    assert {"event": "ended", "study": "demo", "code": 0}.items() <= message.items()
    assert message["text"] == "demo has ended: all trials are there"
    assert json.loads(told.read_text(encoding="utf-8")) == message
    assert capfd.readouterr().err == ""


def test_a_run_that_breaks_off_is_told_with_why(server, tmp_path):
    address, posted = server
    with (
        pytest.raises(UserError),
        Notifying("demo", str(tmp_path / "store"), (address,)),
    ):
        raise UserError("the disk is full")
    assert posted[0][1]["text"] == "demo has ended: the disk is full"
    assert posted[0][1]["code"] is None


def test_what_cannot_be_told_is_warned_of_once_and_without_secrets(server, tmp_path, capfd):
    address, posted = server
    broken = f"{address}/broken/T0/geheim?key=geheim"
    notifying = Notifying("demo", str(tmp_path / "store"), (broken, "echo no >&2; exit 7"))
    with notifying:
        for _ in range(3):
            notifying._messages.put({"event": "stalled", "study": "demo", "text": "…"})
        notifying.ended(0)
    assert len(posted) == 4
    first, second = capfd.readouterr().err.strip().split("\n")
    assert "HTTP Error 500" in first
    assert "it ended with 7: no; the run goes on" in second
    assert "geheim" not in first


def test_targets_come_from_the_command_line_or_the_environment(monkeypatch):
    monkeypatch.setenv("MM1_NOTIFY", "https://hooks.example/T0\nmail -s mm1 me@example.org\n")
    assert targets(()) == ("https://hooks.example/T0", "mail -s mm1 me@example.org")
    assert targets(["true"]) == ("true",)
    with pytest.raises(UserError, match=r"ftp://x/…: an address begins with http"):
        targets(["ftp://x/secret"])
    assert (
        shown_target("https://me:pass@hooks.example:8443/T0/B1") == "https://hooks.example:8443/…"
    )


def test_a_target_that_is_not_there_raises():
    with pytest.raises(OSError, match="refused"):
        send("http://127.0.0.1:9/x", {})


def test_a_verdict_is_news_when_it_was_open_before_and_silence_once():
    news = News()
    decided = dataclasses.replace(CLAIM, interim=False, verdict="supported", n=4)
    known = dataclasses.replace(decided, name="known")
    assert news.of(a_view(claims=(CLAIM, known))) == []
    silent = STAGE.model_copy(update={"silent_seconds": 500.0})
    found = news.of(a_view(claims=(decided, known), stages=(silent,)))
    assert [one["event"] for one in found] == ["verdict", "stalled"]
    assert found[0]["text"] == (
        "demo: bigger-is-better: ✓ supported · +15.1, claimed > 0 · registered"
    )
    assert news.of(a_view(claims=(decided, known), stages=(silent,))) == []
