"""The hash of a value, by which what is the same is known to be so."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(content: Any) -> str:
    """JSON that is one text for what is the same: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(content: Any) -> str:
    """32 hexadecimal digits of the SHA-256 of canonical JSON."""
    return fingerprint_of_text(canonical(content))


def fingerprint_of_text(text: str) -> str:
    """The same of a value that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
