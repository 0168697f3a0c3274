"""What a user's name of a place means: a path of this machine, or what fsspec opens behind a URL.

Data are read and stores are kept through this, so that both know the same places.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

LOCAL_PROTOCOLS = ("file://", "local://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol → extra of this package


def local_path(name: str) -> Path:
    """The absolute path of a name: one that exists is that path, also where it begins with `~`."""
    if not os.path.lexists(name):
        name = os.path.expanduser(name)  # noqa: PTH111 - unlike Path's, leaves ~nobody as it is
    return Path(name).absolute()


def without_local_protocol(name: str) -> str:
    """`file:///data` is `/data`; other names are what they are."""
    protocol = next((start for start in LOCAL_PROTOCOLS if name.startswith(start)), "")
    return name.removeprefix(protocol)


def remote_files(url: str, **options: Any) -> tuple[AbstractFileSystem, str]:
    """What reads and writes a URL, and the path that it has there; `options` as fsspec's.

    Raises:
        UserError: nothing can; names the extra that brings it, if there is one.
    """
    import fsspec  # planning of what lies here needs none

    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        protocol = url.partition("://")[0]
        extra = _EXTRAS.get(protocol)
        wanted = f'{protocol}:// needs `pip install "mm1[{extra}]"`' if extra else str(error)
        raise UserError(f"{url}: {wanted}") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
