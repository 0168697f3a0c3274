"""What MLflow shows of verdicts, read back through its own API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import render
from sweeps.mlflow_mirror import Mirror, MirrorProcess, is_current, tracking_uri, verdict_tags
from sweeps.mlflow_names import original

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
PATIENCE = 300.0  # s; importing MLflow on a busy machine


def compared(lab: Any) -> Path:
    file = lab.folder / "comparison.json"
    file.write_text(render(lab.results(), "json"), encoding="utf-8")
    return file


def tags_of_the_study(lab: Any, uri: str) -> dict[str, str]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mm1-sizes")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`mm1.role` = 'study'")
    (run,) = runs
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert "comparison.json" in artifacts
    return {original(key): value for key, value in run.data.tags.items()}


def test_verdicts_reach_mlflow_with_all_that_stands_beside_them(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    claims = {"better": BETTER, "rate > 60? (größer)": "score(base) > 60"}
    plan = lab.register(claims=claims)
    lab.finish(plan, blind=80.0)
    uri = tracking_uri(lab.store, None)
    assert uri is not None
    mirror = Mirror(lab.store, plan, lab.store.snapshot("sizes")[1], uri)
    mirror.study()
    mirror.conclude(None, compared(lab))
    tags = tags_of_the_study(lab, uri)
    assert tags["mm1.verdict.better"] == "supported (registered, control not beaten)"
    assert tags["mm1.standing.better"] == "registered"
    assert tags["mm1.notices"] == "none"
    for line in json.loads(compared(lab).read_text(encoding="utf-8"))["claims"]:
        name = line["name"]
        assert line["sentence"] in tags[f"mm1.sentence.{name}"]
        assert line["scope"] in tags[f"mm1.sentence.{name}"]
        for word, told in line["caveats"]:
            assert word in tags[f"mm1.verdict.{name}"]
            assert told in tags[f"mm1.caveats.{name}"]
    assert set(tags) >= {f"mm1.verdict.{name}" for name in claims}

    # A notice that comes later, such as of a changed study file, reaches it with the next run.
    process = MirrorProcess(lab.store, plan, uri)
    assert process.finish(comparison=compared(lab), silence=PATIENCE) is None
    process.end()
    assert is_current(lab.store, plan, uri)
    assert is_current(lab.store, plan, uri, compared(lab))
    lab.plan(claims=claims, question="Is it worse?")
    assert is_current(lab.store, plan, uri)
    assert not is_current(lab.store, plan, uri, compared(lab))
    process = MirrorProcess(lab.store, plan, uri)
    assert process.finish(comparison=compared(lab), silence=PATIENCE) is None
    process.end()
    assert "has changed since this was run" in tags_of_the_study(lab, uri)["mm1.notices"]
    assert is_current(lab.store, plan, uri, compared(lab))


def test_interim_verdicts_say_so() -> None:
    claim = {
        "name": "better",
        "verdict": "supported",
        "interim": True,
        "standing": "registered",
        "caveats": [],
        "sentence": "Not yet: 1 of 3 seeds are in.",
        "scope": "on these benchmarks",
    }
    notices = ["interim: 1 of 3 seeds are complete"]
    tags = verdict_tags({"claims": [claim], "notices": notices, "warnings": []})
    assert tags["mm1.verdict.better"] == "interim (registered)"
    assert tags["mm1.caveats.better"] == "none"
    assert tags["mm1.notices"] == "interim: 1 of 3 seeds are complete"
