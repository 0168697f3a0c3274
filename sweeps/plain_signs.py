"""Output where the terminal's encoding lacks our signs: `-` for `−`, `~` for `…`, never a crash.

Everything is written for UTF-8. A terminal of another encoding (ISO-8859-1, ASCII) is shown what
it can show; letters that have no plain form come as `\\xe9`, and so do bytes of file names that are
no text.
"""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

SIGNS = {
    "−": "-", "–": "-", "·": "-", "…": "~", "±": "+-", "×": "x", "→": "->", "≤": "<=", "≥": ">=",
    "≈": "~", "✓": "+", "✗": "x", "━": "-", "╸": "-", "╺": "-", "│": "|", "─": "-", "•": "*",
    "“": '"', "”": '"', "’": "'", "‘": "'", "\N{NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " ",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (SIGNS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in letters)
    return "".join(plain), error.end


codecs.register_error("mm1-plain-signs", _plain)


def use_plain_signs(*streams: TextIO) -> None:
    """Let text streams (default: stdout and stderr) write plain signs where they have to."""
    for stream in streams or (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # what replaces them may have none
        if reconfigure is not None:
            reconfigure(errors="mm1-plain-signs")
