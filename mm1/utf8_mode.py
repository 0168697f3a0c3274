"""One encoding for files and their names, whatever the locale says: UTF-8.

Under a locale of another encoding Python would write and look for the names of files in that one,
and every package in use would read texts in it. So the program starts again in Python's UTF-8 mode
(PEP 540), which its workers and other processes inherit; the terminal is still written to in the
encoding that it shows.
"""

from __future__ import annotations

import codecs
import locale
import os
import sys
from pathlib import Path

from ablations.errors import UserError

_VARIABLE = "PYTHONUTF8"


def enter_utf8_mode() -> None:
    """Start again in UTF-8 mode unless names of files are UTF-8 already, or that was tried."""
    if not _is_utf8(sys.getfilesystemencoding()) and os.environ.get(_VARIABLE) is None:
        os.environ[_VARIABLE] = "1"
        os.execv(sys.executable, [os.fsencode(sys.executable), *_arguments()])
    if sys.flags.utf8_mode and "PYTHONIOENCODING" not in os.environ and not _locale_is_ascii():
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)  # what replaces them may have none
            if reconfigure is not None:
                reconfigure(encoding=locale.getencoding())


def _arguments() -> list[bytes]:
    """What this program was called with, to the byte.

    Python has read it in the encoding of the locale, and what is no text in that one cannot always
    be written back: half of what is UTF-8 under EUC-JP.
    """
    try:
        return Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
    except OSError:
        return [os.fsencode(argument) for argument in sys.orig_argv[1:]]


def typed(text: str, option: str) -> str:
    """The text of an option as it was typed: in the encoding of the locale, if not in UTF-8."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode(locale.getencoding())
        except UnicodeError:
            raise UserError(f"{option}: it is no text in {locale.getencoding()}") from None


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _locale_is_ascii() -> bool:
    """Whether the locale is C or POSIX, which say nothing of what a terminal can show."""
    return codecs.lookup(locale.getencoding()).name == "ascii"
