from __future__ import annotations

import io
import tokenize
from pathlib import Path

import ablations
from ablations.source_code import canonical_source

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
