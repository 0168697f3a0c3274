"""`mm1 table`, `compare --table`, `register claims.yaml`: the doors, and what a claim rests on."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ablations.errors import UserError
from mm1.cli import cli
from sweeps.records import ClaimsRecord, sealed
from sweeps.store import Store

A, B = (50.3, 50.1, 51.2), (52.1, 50.8, 53.0)
CLAIMS = """\
claims:
  larger: score(b) > score(a)
seeds: 3
table: {primary: accuracy}
"""


def csv(hours: float = 1.0, missing: int = -1) -> str:
    """A table whose runs begin so many hours from now."""
    at = datetime.now(UTC) + timedelta(hours=hours)
    rows = [
        f"{arm},{seed},{score},{(at + timedelta(minutes=seed)).isoformat()}"
        for arm, own in (("a", A), ("b", B))
        for seed, score in enumerate(own)
        if not (arm == "b" and seed == missing)
    ]
    return "\n".join(["model,seed,accuracy,created_at", *rows])


def mm1(*arguments: object, text: str | None = None) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], input=text, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MM1_STORE", str(tmp_path / "store"))
    (tmp_path / "results.csv").write_text(csv(), encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(CLAIMS, encoding="utf-8")
    return tmp_path


def claim_of(*more: object) -> dict[str, Any]:
    made = json.loads(
        mm1("compare", "--table", "results.csv", "--claims", "claims.yaml", "--json", *more)
    )
    (one,) = made["claims"]
    return one | {"words": {caveat[0]: caveat[1] for caveat in one["caveats"]}}


def test_a_table_is_told_and_compared(place: Path) -> None:
    told = mm1("table", "results.csv")
    for line in ("base: a (the first by name", "seeds: 0, 1, 2, every arm", "higher is better"):
        assert line in told
    made = json.loads(mm1("table", "results.csv", "--json"))
    assert made["arms"] == {"a": [0, 1, 2], "b": [0, 1, 2]}
    plain = mm1("compare", "--table", "results.csv")
    assert "supported" not in plain
    assert "could be seen" in plain
    text = mm1("compare", "--table", "-", "--claim", "score(b) > score(a)", text=csv())
    assert "✓ supported" in text
    assert "exploratory" in text
    assert "stated beside the results" in " ".join(text.split())


def test_a_claim_that_is_older_than_its_runs_is_registered(place: Path) -> None:
    assert claim_of()["standing"] == "exploratory"
    said = mm1("register", "claims.yaml")
    assert "is registered as" in said
    one = claim_of("--registration", "claims.registration.json")
    assert (one["standing"], one["verdict"]) == ("registered", "supported")
    rests = one["words"]["on two records"]
    assert "created_at" in rests
    assert "can edit both" in rests
    # The same claims in other words of YAML are the same; others are not.
    (place / "claims.yaml").write_text("# now with a comment\n" + CLAIMS, encoding="utf-8")
    assert claim_of()["standing"] == "registered"
    (place / "claims.yaml").write_text(
        CLAIMS.replace("score(b) > score(a)", "score(b) < score(a)"), encoding="utf-8"
    )
    assert claim_of()["standing"] == "exploratory"


def test_what_could_be_picked_later_is_not_registered(place: Path) -> None:
    mm1("register", "claims.yaml")
    said = claim_of("--base", "b")
    assert said["standing"] == "exploratory"
    assert "beside the registered file" in said["words"]["exploratory"]
    (place / "results.csv").write_text(csv(hours=-1), encoding="utf-8")
    assert "had begun" in claim_of()["words"]["exploratory"]
    lines = csv(hours=-1).splitlines()[:2] + csv(hours=1).splitlines()[2:]
    (place / "results.csv").write_text("\n".join(lines), encoding="utf-8")
    assert claim_of()["standing"] == "partly known"
    rows = [line.rpartition(",")[0] for line in csv().splitlines()]
    (place / "results.csv").write_text("\n".join(rows), encoding="utf-8")
    assert "nothing says when" in claim_of()["words"]["exploratory"]
    naive = csv(hours=2).replace("+00:00", "")  # it may be two hours ago in another zone
    (place / "results.csv").write_text(naive, encoding="utf-8")
    assert claim_of()["standing"] == "exploratory"
    (place / "results.csv").write_text(csv(hours=20).replace("+00:00", ""), encoding="utf-8")
    assert claim_of()["standing"] == "registered"
    (place / "results.csv").write_text(csv(missing=2), encoding="utf-8")  # a seed that was planned
    one = claim_of()
    assert (one["verdict"], one["reason"]) == ("undecided", "2 of 3 seeds")


def test_claims_that_leave_the_seeds_open_cannot_be_registered(place: Path) -> None:
    (place / "claims.yaml").write_text(CLAIMS.replace("seeds: 3\n", ""), encoding="utf-8")
    with pytest.raises(UserError, match="does not say which seeds"):
        mm1("register", "claims.yaml")


def test_several_claims_files_on_the_same_arms_are_told(place: Path) -> None:
    (place / "other.yaml").write_text(CLAIMS.replace("> score(a)", "< score(a)"), encoding="utf-8")
    mm1("register", "other.yaml")
    mm1("register", "claims.yaml")
    one = claim_of()
    assert one["standing"] == "repeated"
    assert "larger: score(b) < score(a)" in one["words"]["repeated"]


def test_a_record_that_was_made_older_does_not_count(place: Path) -> None:
    (place / "results.csv").write_text(csv(hours=-24), encoding="utf-8")
    mm1("register", "claims.yaml")
    store = Store(place / "store")
    (record,), _ = store.claims()
    path = place / "store" / "claims" / f"{record.hash}.json"
    older = (datetime.now(UTC) - timedelta(days=3)).isoformat(timespec="milliseconds")
    forged = ClaimsRecord(**(record.model_dump() | {"registered_at": older}))
    path.write_bytes(path.read_bytes().replace(record.registered_at.encode(), older.encode()))
    assert store.claims()[1]  # no seal that fits
    assert claim_of()["standing"] == "exploratory"
    path.write_bytes(sealed(forged))
    one = claim_of()
    assert one["standing"] == "exploratory"
    assert "copied, or edited" in one["words"]["exploratory"]
    # With the file's time set back as well, a later record still says what it was.
    path.write_bytes(sealed(record))
    (place / "later.yaml").write_text(CLAIMS.replace("b) >", "c) >"), encoding="utf-8")
    mm1("register", "later.yaml")
    path.write_bytes(sealed(forged))
    back = time.time() - 4 * 86_400
    os.utime(path, (back, back))
    assert "a later one" in claim_of()["words"]["exploratory"]
    path.unlink()
    assert claim_of()["standing"] == "exploratory"


def test_options_of_a_table_without_one_are_a_mistake(place: Path) -> None:
    for arguments, told in (
        (("compare", "demo", "--claim", "score(a) > 1"), "--claim is of a table"),
        (("compare", "demo", "--table", "results.csv"), "say one"),
        (("compare",), "say which STUDY, or --table SOURCE"),
        (
            ("compare", "--table", "results.csv", "--claims", "claims.yaml", "--claim", "x"),
            "put that of --claim into it",
        ),
        (("compare", "--table", "results.csv", "--claim", "score(b) >"), "--claim 'score(b) >'"),
        (("table", "results.csv", "--exclude", "b seed 1"), "expected 'ARM seed N: WHY'"),
        (("table", "result.csv"), "did you mean 'results.csv'?"),
        (("compare", "--table", "results.csv", "--claims", "no.yaml"), "no such file"),
    ):
        with pytest.raises(UserError) as error:
            mm1(*arguments)
        assert told in str(error.value)


def test_mistakes_in_a_claims_file_name_their_line(place: Path) -> None:
    for text, told in (
        ("claims:\n  c: score(b >\n", "claims.yaml:2: claims.c: expected"),
        ("claims: {c: score(b) > 1}\ntable: {arms: x}\n", "claims.yaml:2: unknown key"),
        ("claims: {}\n", "claims.yaml:1"),
        ("claims: {c: score(b) > 1}\nseeds: {from: fresh, count: 3}\n", "claims.yaml:2"),
    ):
        (place / "claims.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as error:
            claim_of()
        assert told in str(error.value)


def test_a_report_of_a_table(place: Path) -> None:
    path = mm1("report", "--table", "results.csv", "--claim", "score(b) > score(a)").strip()
    assert path == "results-report.html"
    page = (place / path).read_text(encoding="utf-8")
    assert "score(b) − score(a)" in page
    assert "exploratory" in page
    assert "<script src" not in page
