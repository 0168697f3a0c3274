from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import ablations
from ablations.source_code import canonical_source, says_it_decides_nothing

SOURCE = '''
"""A module."""

import math


def area(radius):
    """Of a circle."""
    if radius > 0:
        return math.pi * radius**2  # in square units
    return "a string that matters"
'''


def test_comments_docstrings_and_layout_do_not_count():
    rewritten = '''"""Told otherwise."""
import math
# A comment of its own.
def area( radius ):
  """Another
  docstring."""

  if radius > 0:
      return (math.pi) * radius ** 2
  return "a string that matters"
'''.replace("(math.pi)", "math.pi")
    assert canonical_source(rewritten) == canonical_source(SOURCE)
    assert canonical_source(SOURCE.replace("\n", "\r\n")) == canonical_source(SOURCE)


def test_what_a_program_does_counts():
    canonical = canonical_source(SOURCE)
    assert canonical_source(SOURCE.replace("that matters", "of another text")) != canonical
    assert canonical_source(SOURCE.replace("radius**2", "radius**3")) != canonical
    dedented = SOURCE.replace('    return "a', '        return "a')
    assert canonical_source(dedented) != canonical


def test_its_tokens_are_those_of_the_public_tokenizer(monkeypatch):
    paths = [
        *Path(ablations.__file__).parent.glob("*.py"),
        *Path(tokenize.__file__).parent.glob("[s-t]*.py"),
    ]
    sources = [path.read_text(encoding="utf-8") for path in paths]
    ours = [canonical_source(source) for source in sources]
    canonical_source.cache_clear()
    monkeypatch.setattr(
        tokenize,
        "_generate_tokens_from_c_tokenizer",
        lambda source: tokenize.generate_tokens(io.StringIO(source).readline),
    )
    assert [canonical_source(source) for source in sources] == ours
    assert len(set(ours)) == len(sources)


def test_sentences_of_errors_do_not_count_and_words_do():
    source = 'def f(x):\n    raise PictureError("bomb", f"{x} pixels", file=x)\n'
    canonical = canonical_source(source)
    for told in ('f"{x:,} pixels "\n"are too many"', '"of what size?"'):
        assert canonical_source(source.replace('f"{x} pixels"', told)) == canonical
    for other in ('"flood", f"{x} pixels"', '"bomb", f"{x} pixels", 3', '"bomb", "pixels"'):
        assert canonical_source(source.replace('"bomb", f"{x} pixels"', other)) != canonical
    assert canonical_source(source.replace("PictureError", "OtherError")) != canonical
    # What is no error may be what a program goes by.
    signal = 'raise Converged("at the end")\n'
    assert canonical_source(signal) != canonical_source(signal.replace("end", "start"))
    one_line = 'if x: raise ValueError("no x")\n'
    assert canonical_source(one_line) == canonical_source(one_line.replace("no x", "an x"))


def test_sentences_of_a_log_do_not_count_unless_what_is_printed_is_the_result():
    source = '_logger.info("%d items left", left(3))\n'
    reworded = source.replace("left", "to go", 1)
    assert canonical_source(source) == canonical_source(reworded)
    assert canonical_source(source) != canonical_source(source.replace("3", "4"))
    assert canonical_source(source, prints=True) != canonical_source(reworded, prints=True)
    printed = 'print("%d items left")\n'
    assert canonical_source(printed) != canonical_source(printed.replace("left", "to go"))


def test_descriptions_of_fields_do_not_count():
    canonical = canonical_source("class A:\n    x: int = Field(4, ge=0)\n")
    for arguments in (
        '4, ge=0, description="a count"',
        '4, description="a" "count", ge=0',
        '\n        4,\n        ge=0,\n        description="a count",\n    ',
    ):
        assert canonical_source(f"class A:\n    x: int = Field({arguments})\n") == canonical
    of_a_model = 'prompt(description="a count")\n'
    assert canonical_source(of_a_model) != canonical_source(of_a_model.replace("a ", "the "))
    computed = "x = Field(description=told(3))\n"
    assert canonical_source(computed) != canonical_source(computed.replace("3", "4"))
    tuples = "x = Field((1,), description='a b')\n"
    assert canonical_source(tuples) != canonical_source(tuples.replace("(1,)", "(1)"))


def test_what_says_that_it_decides_nothing_does_not_count():
    source = """class A:
    def f(self):
        return 1

    @decides_no_result
    @property
    def cost(self):
        if self.big:
            return 2
        return 3

    def g(self):
        return 4
"""
    canonical = canonical_source(source)
    assert "cost" not in canonical
    assert canonical_source(source.replace("return 3", "return 5")) == canonical
    for kept in ("return 1", "return 4", "def g"):
        assert kept in canonical
    unmarked = source.replace("    @decides_no_result\n", "")
    assert canonical_source(unmarked) != canonical


def test_a_module_says_that_it_decides_nothing():
    assert says_it_decides_nothing(ast.parse('DECIDES_NO_RESULT = "told alone"\n'))
    assert not says_it_decides_nothing(ast.parse("def f():\n    DECIDES_NO_RESULT = 1\n"))


SAYS_WHAT = """\
from ablations.timeline import doing

@decides
@doing("data")
def read(folder):
    with doing("data"):
        for file in folder:
            with doing("save"):
                keep(file)
            use(file)
    return folder
"""
SAYS_NOTHING = """\
@decides
def read(folder):
    for file in folder:
        keep(file)
        use(file)
    return folder
"""


def test_to_say_what_is_being_done_changes_nothing_and_what_is_done_there_counts():
    assert canonical_source(SAYS_WHAT) == canonical_source(SAYS_NOTHING)
    moved = SAYS_WHAT.replace("            use(file)", "    use(file)")
    assert canonical_source(moved) != canonical_source(SAYS_NOTHING)
    assert canonical_source(SAYS_WHAT.replace("keep(", "drop(")) != canonical_source(SAYS_NOTHING)


def test_somebody_elses_doing_counts():
    for other in (
        SAYS_WHAT.replace("from ablations.timeline import", "from mine import"),
        SAYS_WHAT.replace('doing("save")', "doing(save())"),
        SAYS_WHAT.replace('with doing("data")', 'with doing("data"), opened(folder)'),
    ):
        assert canonical_source(other) != canonical_source(SAYS_NOTHING)
