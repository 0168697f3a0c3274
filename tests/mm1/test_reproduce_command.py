"""A study is done again from its report alone, and its numbers are the same to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow  # two runs of a real study
def test_a_report_is_reproduced_to_the_bit_from_itself_alone(
    mm1, study: Path, tmp_path: Path
) -> None:
    done = mm1("run", study, "--workers", 1, "--mlflow", "off")
    assert done.returncode == 0, done.stderr
    written = mm1("report", "miniature", "--format", "pdf", "--out", "kept.pdf")
    assert written.returncode == 0, written.stderr
    for file in ("study.yaml", "recipe.yaml"):
        (tmp_path / file).unlink()
    again = mm1("reproduce", "kept.pdf", "--store", "again", "--workers", 1)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "stages have no result" in again.stdout
    assert "4 trials: 4 equal" in again.stdout
    assert "unlike the report" not in again.stdout
    once_more = mm1("reproduce", "kept.pdf", "--store", "again")
    assert "stages have no result" not in once_more.stdout
    assert once_more.returncode == 0
