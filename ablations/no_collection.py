"""Making many records at once without the garbage collector, which would take half of the time."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def no_collection() -> Generator[None]:
    """What is made inside stays, so nobody looks again and again for what of it is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def no_more_collection() -> None:
    """The same until this process ends, which it does as soon as it has answered."""
    gc.disable()
    atexit.register(gc.freeze)  # else Python looks through everything once more when it ends
