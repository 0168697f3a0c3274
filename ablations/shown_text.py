"""What of other people's text may be shown: without secrets, and nothing that a terminal obeys.

Addresses hold passwords and signatures, names and error texts hold whatever somebody wrote.
Everything that is printed, logged or recorded passes here.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from rich.text import Text

HIDDEN = "***"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"'`]+")
# `user:password@`; a password may hold what an address should have written as %40 or %2F.
_USER = re.compile(r"^(?P<scheme>[^:]+://)(?P<user>[^:@/?#]*)(?P<password>:[^@]*(?:@[^@/?#]*)*)?@")
_QUERY_VALUE = re.compile(r"(?<=[?&#;])([^=&#;]*)=([^&#;]*)")
# Libraries tell a path with its query and leave the host out.
_SIGNED = re.compile(
    r"(?<=[?&])([\w.%-]*(?:sig|signature|token|secret|password|credential|key|key-id|keyid)"
    r"[\w.%-]*)=[^&\s'\"]+",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|TOKEN|SECRET|ACCESS_KEY|ACCESS_KEY_ID|ACCOUNT_KEY|API_KEY|SAS)$",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6  # characters: hiding a shorter one would hide words

# C0 and C1 controls, deletes, line separators, marks that turn the direction of text, surrogates.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown_url(url: str) -> str:
    """An address without its secrets: `https://user:***@host/shard.tar?sig=***`.

    A password, a user that stands alone before an http address (a token), and every value of the
    query or fragment are hidden. A local path is returned as it is.
    """
    if "://" not in url:
        return url
    found = _USER.match(url)
    if found is not None:
        user = found["user"]
        if found["password"] is not None:
            user += f":{HIDDEN}"
        elif found["scheme"].startswith("http"):
            user = HIDDEN
        url = f"{found['scheme']}{user}@{url[found.end() :]}"
    return _QUERY_VALUE.sub(rf"\1={HIDDEN}", url)


def secrets_of(url: str) -> list[str]:
    """The secret parts of an address, as written and decoded, to be hidden wherever they stand."""
    found = _USER.match(url)
    if found is None:
        return []
    password = found["password"]
    secret = found["user"] if password is None else password.removeprefix(":")
    if password is None and not found["scheme"].startswith("http"):
        return []
    return [part for part in dict.fromkeys((secret, unquote(secret))) if part]


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """Any text with its addresses as `shown_url` shows them.

    Secrets that are `known`, and those of this process's environment (MLFLOW_TRACKING_PASSWORD,
    AWS_SECRET_ACCESS_KEY, RAY_AUTH_TOKEN, …), are hidden wherever they stand.
    """
    return hiding(known)(text)


def hiding(known: Iterable[str] = ()) -> Callable[[str], str]:
    """`without_secrets` for many texts: this process's environment is looked at once."""
    own = _of_environment(tuple(os.environ.items()))
    secrets = sorted({*known, *own}, key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        if "://" in text:
            text = _URL.sub(lambda found: shown_url(found[0]), text)
        if "=" in text and ("?" in text or "&" in text):  # a picture as text is long, and has none
            text = _SIGNED.sub(rf"\1={HIDDEN}", text)
        return text

    return hide


@lru_cache(maxsize=1)  # asked for every text, and hardly ever of another environment
def _of_environment(variables: tuple[tuple[str, str], ...]) -> frozenset[str]:
    found = [value for name, value in variables if _SECRET_VARIABLE.search(name)]
    found += secrets_of(dict(variables).get("MLFLOW_TRACKING_URI", ""))
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def visible(text: str) -> str:
    r"""Text that a terminal shows and does not obey: ESC is `\x1b`, a right-to-left mark `\u202e`.

    Line ends and tabs stay.
    """
    return _OBEYED.sub(lambda found: _escaped(ord(found[0])), text.replace("\r\n", "\n"))


def each_text(tree: Any, change: Callable[[str], str]) -> Any:
    """A tree of lists and maps, as JSON has them, with every text in it changed; keys stay."""
    if isinstance(tree, str):
        return change(tree)
    if isinstance(tree, list | tuple):
        return [each_text(one, change) for one in tree]
    if isinstance(tree, Mapping):
        return {key: each_text(one, change) for key, one in tree.items()}
    return tree


def in_html(text: str) -> str:
    """Text for HTML and SVG, between tags or in a quoted attribute; `visible`, without secrets."""
    return html.escape(visible(without_secrets(text)))


def in_terminal(text: str, style: str = "") -> Text:
    """Text for Rich: `visible`, without secrets, and what looks like markup is no markup."""
    from rich.text import Text

    return Text(visible(without_secrets(text)), style)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
