"""What of a store nobody needs any more: found by `rubbish`, removed by `remove`.

Needed is what a registered study has, whether it is done or not: results, the scratch folders that
unfinished stages go on from, records of failures; what was evaluated of a study's stages; and all
that somebody works on. Rubbish is the rest, once it is older than the retention:

- results that no registered study has, with the records of their failed attempts,
- attempts that came to nothing and that nobody holds,
- scratch folders of stages that are done, or that no study has,
- results that were set aside as damaged, temporary files, and log files of Ray,
- code that was sent to Kubernetes, while no study is being run.

Where a registration cannot be read, nobody can say what its study needs: results and scratch
folders are then left alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from sweeps import kuberay, leases
from sweeps.finished import STAGE_ID
from sweeps.fsck import orphans
from sweeps.records import UnreadableError, read_record
from sweeps.store import Store

RETENTION_DAYS = 30.0
DAY_SECONDS = 86_400.0
LOGS = "ray-logs"

Kind = Literal["result", "attempt", "scratch", "set aside", "temporary file", "log files", "code"]


class Rubbish(Config):
    """Something that nobody needs."""

    kind: Kind
    place: str  # relative to the store
    written: float  # when it was last, seconds since 1970
    size_bytes: int


class Found(Config):
    """What there is of it, and why more was not looked for."""

    rubbish: tuple[Rubbish, ...]
    left_alone: str = ""  # "" where everything could be judged

    @property
    def size_bytes(self) -> int:
        """Of all of it."""
        return sum(one.size_bytes for one in self.rubbish)


def rubbish(store: Store, retention_days: float = RETENTION_DAYS) -> Found:
    """All that nobody needs and that is older than the retention; changes nothing.

    Raises:
        UserError: there is no store.
    """
    if not {"format.json", "stages", "studies"} & set(store.objects.children("", hidden=True)):
        raise UserError(f"no store at {store.root}")
    before = time.time() - retention_days * DAY_SECONDS
    needed, unreadable = _needed(store)
    found = [
        *_attempts(store),
        *_set_aside(store),
        *_temporary(store),
        *_logs(store),
        *_code(store),
    ]
    if unreadable:
        left = f"results and scratch folders are left alone: {unreadable}; see mm1 fsck"
    else:
        left = ""
        found += [*_results(store), *_scratch(store, needed)]
    old = [one for one in found if one.written < before]
    return Found(rubbish=tuple(sorted(old, key=lambda one: one.place)), left_alone=left)


def remove(store: Store, found: Found) -> list[Rubbish]:
    """Remove what was found, unless somebody works on it by now; what was removed.

    Raises:
        UserError: a study was registered since, so that what it needs was not looked at.
    """
    marks = store.registration_marks()
    looked = rubbish(store, retention_days=0.0)  # what is needed now
    still = {one.place for one in looked.rubbish}
    if store.registration_marks() != marks:
        raise UserError("a study is being registered: nothing was removed; run mm1 gc again")
    return [one for one in found.rubbish if one.place in still and _removed(store, one)]


def _removed(store: Store, one: Rubbish) -> bool:
    parts = one.place.split("/")
    if one.kind == "log files":
        shutil.rmtree(store.local / one.place, ignore_errors=True)
        return True
    if one.kind == "scratch":
        stage_id = parts[-1]
    elif one.kind in ("result", "attempt"):
        stage_id = parts[2]
    else:
        store.objects.remove(one.place)
        return True
    lease = leases.acquire(store.objects, store.lease_folder(stage_id))
    if lease is None:
        return False
    try:
        if one.kind == "scratch":
            shutil.rmtree(store.local / one.place, ignore_errors=True)
        elif one.kind == "result":
            # The record first: what is left of a removal that was cut short is no result.
            store.objects.remove(f"{one.place}/done.json")
            for name in store.objects.children(one.place, hidden=True):
                if name != "lease":
                    store.objects.remove(f"{one.place}/{name}")
        else:
            store.objects.remove(one.place)
        return True
    finally:
        lease.remove()


def _needed(store: Store) -> tuple[set[str], str]:
    """Stages of all registered studies, and a line where a registration cannot be read."""
    needed: set[str] = set()
    for study in store.objects.children("studies"):
        for one in store.objects.children(f"studies/{study}"):
            if one in ("lease", "latest.json"):
                continue
            try:
                needed |= set(
                    read_record(store.objects, f"studies/{study}/{one}/plan.json", Plan).stages
                )
            except FileNotFoundError:
                return needed, f"studies/{study}/{one} has no plan"
            except UnreadableError as error:
                return needed, str(error)
    return needed, ""


def _results(store: Store) -> Iterator[Rubbish]:
    for one in orphans(store):
        if one.place.startswith("stages/"):
            yield _of_key("result", store, one.place)


def _attempts(store: Store) -> Iterator[Rubbish]:
    for prefix in store.objects.children("stages"):
        for stage_id in store.objects.children(f"stages/{prefix}"):
            if not STAGE_ID.fullmatch(stage_id) or stage_id[:2] != prefix:
                continue
            try:
                left = store.unfinished(stage_id)
            except UnreadableError:  # a damaged result, which mm1 fsck sets aside
                continue
            if left and leases.may_be_taken(store.objects, store.lease_folder(stage_id)):
                for name in left:
                    place = f"stages/{prefix}/{stage_id}/{name}"
                    if not store.objects.exists(f"{place}/results.parquet"):  # else it may be one
                        yield _of_key("attempt", store, place)


def _scratch(store: Store, needed: set[str]) -> Iterator[Rubbish]:
    folder = store.local / "scratch"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not STAGE_ID.fullmatch(path.name) or not path.is_dir():
            continue
        is_free = leases.may_be_taken(store.objects, store.lease_folder(path.name))
        if is_free and (path.name not in needed or store.is_done(path.name)):
            yield _of_folder("scratch", store, path)


def _set_aside(store: Store) -> Iterator[Rubbish]:
    for stage_id in store.objects.children("damaged"):
        for when in store.objects.children(f"damaged/{stage_id}"):
            yield _of_key("set aside", store, f"damaged/{stage_id}/{when}")


def _temporary(store: Store) -> Iterator[Rubbish]:
    for name in store.objects.children("", hidden=True):
        if name.startswith("."):
            yield _of_key("temporary file", store, name)


def _logs(store: Store) -> Iterator[Rubbish]:
    folder = store.local / LOGS
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            yield _of_folder("log files", store, path)


def _code(store: Store) -> Iterator[Rubbish]:
    studies = store.objects.children("studies")
    if all(leases.may_be_taken(store.objects, f"studies/{one}/lease") for one in studies):
        for name in store.objects.children(kuberay.FOLDER):
            yield _of_key("code", store, f"{kuberay.FOLDER}/{name}")


def _of_key(kind: Kind, store: Store, place: str) -> Rubbish:
    """Of a key of the store, or of all below it."""
    if store.objects.local == Path(store.root):
        return _of_folder(kind, store, store.local / place)
    written = store.objects.files(place)
    newest = max(written.values(), default=0.0)
    size = store.objects.size_bytes(place)
    return Rubbish(kind=kind, place=place, written=newest, size_bytes=size)


def _of_folder(kind: Kind, store: Store, path: Path) -> Rubbish:
    newest, size = path.lstat().st_mtime, 0
    for one in (path, *path.rglob("*")):
        try:
            status = one.lstat()
        except FileNotFoundError:  # removed meanwhile
            continue
        newest, size = max(newest, status.st_mtime), size + status.st_blocks * 512
    place = path.relative_to(store.local).as_posix()
    return Rubbish(kind=kind, place=place, written=newest, size_bytes=size)
