from __future__ import annotations

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
