"""A store that waits for its server: each request is tried again for some minutes."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, cast

from ablations.errors import UserError
from sweeps.objects import Objects, StorageError

PATIENCE_SECONDS = 300.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 15.0


class _Patient:
    def __init__(self, objects: Objects, say: Callable[[str], None], seconds: float):
        self._objects, self._say, self._seconds = objects, say, seconds

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._objects, name)
        if not callable(attribute):
            return attribute
        return lambda *words, **options: self._asked(lambda: attribute(*words, **options))

    def _asked(self, request: Callable[[], Any]) -> Any:
        started, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return request()
            except StorageError as error:
                waited = time.monotonic() - started
                if error.errno in (errno.EACCES, errno.EPERM):  # waiting would not help
                    raise
                if waited > self._seconds:
                    raise UserError(
                        f"the store {self._objects.root} has not answered for {waited:.0f} s "
                        f"({error.strerror}); what was finished is kept, run again goes on"
                    ) from error
                if pause == FIRST_PAUSE_SECONDS:
                    self._say(
                        f"the store does not answer ({error.strerror}); it is asked again for "
                        f"{self._seconds / 60:.0f} minutes"
                    )
                time.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE_SECONDS)


def patient(
    objects: Objects, say: Callable[[str], None], seconds: float = PATIENCE_SECONDS
) -> Objects:
    """The same objects; where their server does not answer, `say` tells it once a request.

    A put that is tried again is of the same bytes, so that it is known for ours (`Objects.create`).
    Its methods raise UserError after `seconds`.
    """
    return cast(Objects, _Patient(objects, say, seconds))
