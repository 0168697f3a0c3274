"""Programs of a cluster that stand on this machine, such as sbatch and kubectl."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from ablations.errors import UserError


def ask(
    words: Sequence[str],
    *,
    name: str,
    absent: str,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    given: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """What a program answers to what it is `given`; `name` and `absent` tell of it.

    Raises:
        UserError: it is not here, or has not answered in time.
    """
    try:
        return subprocess.run(
            words,
            env=environment,
            input=given,
            capture_output=True,
            encoding="utf-8",
            timeout=seconds,
        )
    except FileNotFoundError:
        raise UserError(absent) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} did not answer for {seconds:.0f} s") from None
