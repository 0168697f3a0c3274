"""A mistake in a user's own runner is told by the plan, in one line, without importing anything."""

from __future__ import annotations

import shutil
import sys

import pytest

from ablations import identity
from ablations.errors import UserError

RIGHT = "def run(config, seed, inputs, context):\n    return []\n"


@pytest.fixture
def plan(studies, tmp_path, monkeypatch):
    """The plan of a study whose runner is `my.trainer:run`, with these files in `my`."""
    monkeypatch.syspath_prepend(tmp_path)
    identity.source_file.cache_clear()
    identity.code_fingerprint.cache_clear()
    yield lambda content, name="run": _plan(studies, tmp_path, content, name)
    identity.source_file.cache_clear()
    identity.code_fingerprint.cache_clear()


def _plan(studies, tmp_path, content, name):
    (tmp_path / "my").mkdir()
    for file, text in (
        {"trainer.py": content} if not isinstance(content, dict) else content
    ).items():
        (tmp_path / "my" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return studies.plan(runners={"multimodal": f"my.trainer:{name}"})


@pytest.mark.parametrize(
    "content",
    [
        RIGHT,
        "raise SystemExit('imported')\n" + RIGHT,
        "def run(*args): return []",
        "def run(a, b, c, d, e=1, *, f=2): return []",
        "def run(a, b, c, d):\n    def rows():\n        yield 1\n    return [*rows()]",
        "import functools\n@functools.cache\ndef run(): return []",
        "from somewhere import run",
        "from somewhere import *",
        "try:\n    from a import run\nexcept ImportError:\n    run = None",
        "if True:\n    run: object = print",
        "run, other = 1, 2",
        {"trainer.py": "from my.other import go as run", "other.py": RIGHT.replace("run", "go")},
        {"trainer.py": "from .other import x, deep\n" + RIGHT, "other.py": "globals()['x'] = 1"},
        "try:\n    from my import gone\nexcept ImportError:\n    gone = None\n" + RIGHT,
        "def later():\n    from my import gone\n" + RIGHT,
        {"trainer.py": "from .other import run", "other.py": "from .trainer import run"},
        "import my\nfrom . import trainer\n" + RIGHT,
    ],
)
def test_what_may_be_a_runner_is_planned(plan, content):
    made = plan(content)
    assert {one.run for one in made.stages.values() if one.kind == "multimodal"} == {
        "my.trainer:run"
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RIGHT.replace("run", "rnu"), "my.trainer has no 'run'; did you mean 'rnu'?"),
        ("x = 1\ndef run(:\n    pass", "trainer.py:2: not valid Python: "),
        (b"# caf\xe9\n" + RIGHT.encode(), "trainer.py:1: not UTF-8 text"),
        ("# -*- coding: utf-16 -*-\n\0", "trainer.py: not valid Python: "),
        ("\ndef run(config): return []", "trainer.py:2: run takes 1 arguments; a runner is called"),
        ("def run(a, b, c, d, e): return []", "trainer.py:1: run needs 5 arguments"),
        ("def run(a, b, c, d, *, e): return []", "trainer.py:1: run needs the argument e by name"),
        ("async def run(a, b, c, d): return []", "trainer.py:1: run is asynchronous"),
        ("def run(a, b, c, d):\n    yield 1", "trainer.py:1: run is a generator"),
        ({"trainer.py": "import my.other\n" + RIGHT, "other.py": "x = ("}, "other.py:1: not valid"),
        (
            RIGHT.replace("config, seed", "seed, config"),
            "trainer.py:1: run takes them as seed, con",
        ),
        ("run = 3", "trainer.py:1: run is a value, and a runner is a function"),
        ("import json as run", "trainer.py:1: run is a module, and a runner is a function"),
        (
            {"trainer.py": "from .other import go as run", "other.py": "def go(): 0"},
            "other.py:1: go",
        ),
        (
            {"trainer.py": "from .other import og\n" + RIGHT, "other.py": "go = 1"},
            "my.other, which has no such name; valid: go",
        ),
        ("from .gone import go\n" + RIGHT, "trainer.py:1: imports my.gone, which is not there"),
        ("import my.gone\n" + RIGHT, "trainer.py:1: imports my.gone, which is not there"),
        ({"other.py": RIGHT}, "module 'my.trainer' cannot be found; is its folder on PYTHONPATH?"),
        ({"trainer.abi3.so": b""}, "module 'my.trainer' is compiled ("),
    ],
    ids=range(19),
)
def test_what_cannot_run_is_told_by_the_plan(plan, studies, content, message):
    with pytest.raises(UserError) as error:
        plan(content)
    said = str(error.value)
    assert said.startswith(f"{studies.folder / 'study.yaml'}:12: runners.multimodal: ")
    assert message in said
    assert "my.trainer" not in sys.modules
    shutil.rmtree(studies.folder / "my")


@pytest.mark.parametrize("runner", ["sys:exit", "math:sqrt", "__main__:run"])
def test_a_module_without_source_is_no_runner(studies, runner):
    with pytest.raises(UserError, match=r"is compiled|cannot be found"):
        studies.plan(runners={"multimodal": runner})
