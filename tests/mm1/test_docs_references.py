"""What the documentation names of this repository is there: files, folders, tests, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("ablations", "analysis", "benchmarks", "docs", "mm1", "mm1_jax", "sweeps", "tests")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if listed.returncode:
        pytest.skip("not a checkout")
    return [name for name in listed.stdout.split("\n") if name]


def missing(text, files):
    """The names in code that look like ours and are nobody's."""
    folders = {str(folder) for name in files for folder in Path(name).parents}
    tests = {name for name in files if re.search(r"(^|/)test_\w+\.py$", name)}
    functions = {
        found
        for name in tests
        for found in re.findall(r"def (test_\w+)", (ROOT / name).read_text(encoding="utf-8"))
    }
    for code in re.findall(r"`([^`]+)`|^    (.*)$|^```[^`]*^```", text, re.MULTILINE):
        for word in " ".join(code).split():
            path, _, function = word.strip(",;:()[]\"'").partition("::")
            if path.endswith(".py") and function and function not in functions:
                yield word
            if re.fullmatch(r"test_\w+(\.py)?", path):
                known = path in functions or any(
                    Path(name).stem == Path(path).stem for name in tests
                )
                if not known:
                    yield word
            elif path.split("/")[0] in OURS and re.fullmatch(r"[\w./-]+", path) and "/" in path:
                if path not in files and path.rstrip("/") not in folders:
                    yield word
            elif re.fullmatch(r"\w+/[\w/]+\.py", path) and not any(
                name.endswith(f"/{path}") for name in files
            ):
                yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_folder_and_test_that_a_page_names_is_there(page, files):
    assert not list(missing(page.read_text(encoding="utf-8"), files))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name) if name else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, target


def test_a_test_that_is_not_there_is_found(files):
    text = (
        "see `tests/mm1/test_nothing.py`, `test_nowhere.py`, `mm1_jax/none.py` and `data/none.py`"
    )
    assert len(list(missing(text, files))) == 4
    assert not list(
        missing("`tests/mm1/test_docs_references.py`, `vqaEval.py`, `mm1_jax/data/`", files)
    )
