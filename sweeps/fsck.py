"""Every file of a store against the layout of `sweeps.store`: what is damaged or left over.

Nothing is changed by looking. `repair` removes what nobody can need (unfinished attempts that
nobody holds, temporary files), writes anew what follows from other records, and sets aside results
that are not what was written, so that the next run does them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from sweeps import leases
from sweeps.finished import STAGE_ID, read_results
from sweeps.forecasts import Forecast
from sweeps.index import differing
from sweeps.objects import open_file
from sweeps.records import (
    Cancelled,
    CodeRecord,
    DamagedError,
    Done,
    Format,
    Latest,
    Look,
    Registration,
    UnreadableError,
    as_object,
    read,
    read_record,
    sealed,
)
from sweeps.run_times import RunTimes
from sweeps.store import Store, registration_name

# A temporary file of a writer that lives is renamed within seconds.
OLD_SECONDS = 3600.0
# What others keep at the top of a store; not part of its layout.
OTHERS = ("data", "cache", "reports", "mlartifacts", "mlflow", "pretrained", "evaluations")

Kind = Literal["damage", "leftover", "note"]


class Finding(Config):
    """Something in a store that is not as its layout says, and what to do about it."""

    kind: Kind  # a leftover costs room; a note is for people
    place: str  # relative to the store
    what: str
    remedy: str


SET_ASIDE = "--repair sets the stage aside, and the next run does it again"
REMOVED = "--repair removes it"
STRANGE = "not written by mm1; remove it if nobody needs it"
REREGISTER = (
    "restore it from a backup; or remove {}, and mm1 run of the study's file registers anew"
)


def examine(store: Store) -> list[Finding]:
    """All that is wrong, damage first.

    Raises:
        UserError: there is no store.
    """
    names = store.objects.children("", hidden=True)
    if not {"format.json", "stages", "studies"} & set(names):
        raise UserError(f"no store at {store.root}")
    found = [*_top(store, names), *_stages(store), *_studies(store), *_scratch(store)]
    found += [*orphans(store), *_index(store)]
    order = {"damage": 0, "leftover": 1, "note": 2}
    return sorted(found, key=lambda one: (order[one.kind], one.place, one.what))


def repair(store: Store) -> list[str]:
    """Do what the findings say that `--repair` does; a line for each thing done or left."""
    done: list[str] = []
    for one in examine(store):
        if one.place == "format.json" and one.kind == "damage":
            now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            store.objects.remove("format.json")
            store.objects.write("format.json", sealed(Format(created_at=now)), durable=True)
            done.append("format.json was written anew")
        elif one.remedy == REMOVED:
            done += _remove(store, one.place)
        elif one.remedy == SET_ASIDE:
            done += _set_aside(store, one.place)
        elif one.remedy == _REWRITE:
            study, folder = one.place.rpartition("/")[0], ""
            (folder,) = _registrations(store, study)
            store.objects.remove(one.place)
            store.objects.write(one.place, sealed(Latest(folder=folder)), durable=True)
            done.append(f"{one.place} was written anew")
    return list(dict.fromkeys(done))


def _remove(store: Store, place: str) -> list[str]:
    parts = place.split("/")
    if parts[0] != "stages" or len(parts) < 4:
        store.objects.remove(place)
        return [f"{place} was removed"]

    def remove() -> str:
        store.objects.remove(place)
        return f"{place} was removed"

    return [_alone(store, parts[2], remove)]


def _set_aside(store: Store, place: str) -> list[str]:
    stage_id = place.split("/")[2]
    there = store.objects.children(f"stages/{stage_id[:2]}/{stage_id}")
    if not set(there) - {"lease", "failures"}:
        return []  # another finding of the same stage was first
    return [_alone(store, stage_id, lambda: f"{place}: moved to {store.set_aside(stage_id)}")]


def _alone(store: Store, stage_id: str, do: Callable[[], str]) -> str:
    """Do something to a stage while nobody works on it."""
    folder = store.lease_folder(stage_id)
    with contextlib.suppress(NotADirectoryError):
        lease = leases.acquire(store.objects, folder)
        if lease is None:
            return f"stages/{stage_id[:2]}/{stage_id}: somebody is working on it; left alone"
        try:
            return do()
        finally:
            lease.remove()
    store.objects.remove(folder)  # a file in its place
    return f"{folder} was removed"


# -- the parts of a store ----------------------------------------------------------------------


def _top(store: Store, names: list[str]) -> Iterator[Finding]:
    known = {
        "format.json",
        "stages",
        "studies",
        "scratch",
        "damaged",
        "reach",
        "index",
        "code",
        "claims",
        "runs",
        "notes",
    }
    try:
        read_record(store.objects, "format.json", Format)
    except FileNotFoundError:
        yield _damage("format.json", "is missing", "--repair writes it anew")
    except UnreadableError as error:
        yield _damage("format.json", _why(store, error), "--repair writes it anew")
    for name in names:
        if name.startswith("."):
            yield from _temporary(store, name)
        elif name == "damaged":
            count = len(store.objects.children(name))
            what = f"{count} {'stage' if count == 1 else 'stages'} set aside as damaged"
            yield _note(name, what, "remove it when nobody needs it")
        elif name == "smoke":
            yield _leftover(name, "is of a mm1 run --smoke that was ended before")
        elif name not in known and not name.startswith(OTHERS) and not _shows_a_stage(store, name):
            yield _note(name, "is not of a store", STRANGE)
    for name in store.objects.children("code"):
        try:
            read_record(store.objects, f"code/{name}", CodeRecord)
        except FileNotFoundError:  # removed meanwhile
            continue
        except UnreadableError as error:
            yield _damage(f"code/{name}", _why(store, error), REMOVED)
    for line in store.claims()[1]:
        yield _damage("claims", line, "restore it from a backup; what it registered does not count")
    for name in ("stages", "studies", "scratch"):
        with contextlib.suppress(FileNotFoundError, UnreadableError, IsADirectoryError):
            read(store.objects, name)
            yield _damage(name, "is a file in the place of a folder", STRANGE)
    for key, written in store.objects.files("reach").items():
        if time.time() - written > OLD_SECONDS:
            yield _leftover(key.rstrip("/"), "marks a question that was answered long ago")


def _shows_a_stage(store: Store, name: str) -> bool:
    """Whether a name is a link to what a stage here wrote, as `mm1 train` leaves for people."""
    path = store.local / name
    stages = (store.local / "stages").resolve()
    return _is_local(store) and path.is_symlink() and path.resolve().is_relative_to(stages)


def _stages(store: Store) -> Iterator[Finding]:
    stages: dict[str, dict[str, float]] = {}
    for key, written in store.objects.files("stages").items():
        _, prefix, *rest = key.split("/")
        stage_id = rest[0] if rest else ""
        if not stage_id:
            if not key.endswith("/"):
                yield _damage(key, "is a file in the place of a folder", STRANGE)
        elif len(rest) == 1 or not STAGE_ID.fullmatch(stage_id) or stage_id[:2] != prefix:
            kind = _damage if STAGE_ID.fullmatch(stage_id) and len(rest) == 1 else _note
            yield kind(f"stages/{prefix}/{stage_id}", "is no stage's folder", STRANGE)
        else:
            stages.setdefault(stage_id, {})["/".join(rest[1:])] = written
    for stage_id, files in sorted(stages.items()):
        yield from _stage(store, stage_id, files)


def _stage(store: Store, stage_id: str, files: dict[str, float]) -> Iterator[Finding]:
    folder = f"stages/{stage_id[:2]}/{stage_id}"
    record = None
    if "done.json" in files or any(name.startswith("done.json/") for name in files):
        try:
            record = store.done_record(stage_id)
        except UnreadableError as error:
            yield _unreadable(store, f"{folder}/done.json", error, SET_ASIDE)
        else:
            yield from _attempt(store, stage_id, record, files)
    free = leases.may_be_taken(store.objects, store.lease_folder(stage_id))
    for name in sorted({_first(name) for name in files}):
        if name in ("", "done.json", "lease", "failures") or (record and name == record.attempt):
            continue
        if free and record is None and f"{name}/results.parquet" in files:
            what = "is a whole attempt, and no done.json names it"
            yield _damage(f"{folder}/{name}", what, SET_ASIDE)
        elif free:
            what = "is a temporary file" if name.startswith(".") else "is an unfinished attempt"
            yield _leftover(f"{folder}/{name}", f"{what} that nobody holds")
    yield from _lease(store, f"{folder}/lease", done=record is not None)
    yield from _failures(store, f"{folder}/failures", files)


def _attempt(
    store: Store, stage_id: str, record: Done, files: dict[str, float]
) -> Iterator[Finding]:
    folder = f"stages/{stage_id[:2]}/{stage_id}/{record.attempt}"
    whole = True
    for name, checksum in record.files.items():
        key = f"{folder}/{name}"
        found = ""
        try:
            store.objects.fetch(folder, [name] if _is_local(store) else [])
            found = _checksum(store, key)
        except (FileNotFoundError, NotADirectoryError):
            yield _damage(key, "is missing", SET_ASIDE)
        except IsADirectoryError:
            yield _damage(key, "is no file", SET_ASIDE)
        except PermissionError as error:
            yield _damage(key, f"cannot be read: {error.strerror or error}", "make it readable")
        except UserError:
            yield _damage(key, "is a link that leads out of the folder", SET_ASIDE)
        else:
            if found != checksum:
                yield _damage(key, "does not match its checksum", SET_ASIDE)
        whole = whole and found == checksum
    listed = {f"{record.attempt}/{name}" for name in record.files}
    above = {f"{parent.as_posix()}/" for name in listed for parent in Path(name).parents}
    for name in files:
        inside = name.startswith(f"{record.attempt}/") and name != f"{record.attempt}/"
        # A folder in a file's place was told above, and a runner may leave an empty one.
        told = name in listed or name in above or name.rstrip("/") in listed
        under = any(str(parent) in listed for parent in Path(name).parents)
        if inside and not told and not under and not _is_empty_folder(store, stage_id, name):
            place = f"stages/{stage_id[:2]}/{stage_id}/{name.rstrip('/')}"
            yield _damage(place, "was not there when the stage was finished", STRANGE)
    for wrong in read_results(store.objects, {stage_id: record} if whole else {}).values():
        if isinstance(wrong, UnreadableError):
            yield _damage(folder, str(wrong).partition("; ")[0], SET_ASIDE)


def _is_empty_folder(store: Store, stage_id: str, name: str) -> bool:
    if not name.endswith("/") or not _is_local(store):
        return name.endswith("/")
    path = store.local / "stages" / stage_id[:2] / stage_id / name.rstrip("/")
    return path.is_dir() and not path.is_symlink()


def _failures(store: Store, folder: str, files: dict[str, float]) -> Iterator[Finding]:
    for name in files:
        first, _, rest = name.partition("/")
        key = f"{folder}/{rest}"
        if first != "failures" or not rest.rstrip("/"):
            if name == "failures":
                yield _damage(folder, "is a file in the place of a folder", REMOVED)
        elif rest.startswith("."):
            yield from _temporary(store, key)
        elif not rest.endswith(".json"):
            yield _note(key.rstrip("/"), "is no record of a failure", STRANGE)
        else:
            try:
                as_object(read(store.objects, key), key)
            except FileNotFoundError:
                continue
            except UnreadableError as error:
                yield _unreadable(store, key, error, REMOVED)


def _lease(store: Store, folder: str, *, done: bool) -> Iterator[Finding]:
    files = store.objects.files(folder)
    if folder in files or _is_file(store, folder):
        yield _leftover(folder, "is a file in the place of a lease")
        return
    if done and files and leases.may_be_taken(store.objects, folder):
        yield _leftover(folder, "is the lease of a stage that is done")
        return
    for key in files:
        name = key.removeprefix(f"{folder}/")
        if name.startswith("."):
            yield from _temporary(store, key)
        elif not leases.is_record(store.objects, folder, name):
            yield _leftover(key.rstrip("/"), "is no record of a lease")


def _studies(store: Store) -> Iterator[Finding]:
    names: dict[str, dict[str, float]] = {}
    for key, written in store.objects.files("studies").items():
        _, name, *rest = key.split("/")
        if not rest:
            yield _damage(key, "is a file in the place of a folder", STRANGE)
        elif name:
            names.setdefault(name, {})["/".join(rest)] = written
    for name, files in sorted(names.items()):
        if quote(unquote(name), safe="") != name:
            yield _note(f"studies/{name}", "is no study's name", STRANGE)
        else:
            yield from _study(store, f"studies/{name}", unquote(name), files)


_REWRITE = "--repair writes it anew"


def _study(store: Store, folder: str, name: str, files: dict[str, float]) -> Iterator[Finding]:
    registrations = _registrations(store, folder)
    remedy = _REWRITE if len(registrations) == 1 else "mm1 run of the study's file writes it anew"
    named = ""
    try:
        named = read_record(store.objects, f"{folder}/latest.json", Latest).folder
        if named not in registrations:
            what = f"names a registration that is not there: {named}"
            yield _damage(f"{folder}/latest.json", what, remedy)
    except FileNotFoundError:
        if registrations:
            yield _damage(f"{folder}/latest.json", "is missing", remedy)
    except UnreadableError as error:
        yield _unreadable(store, f"{folder}/latest.json", error, remedy)
    free = leases.may_be_taken(store.objects, f"{folder}/lease")
    for other in sorted({_first(one) for one in files} - {"latest.json", "lease", *registrations}):
        if other.startswith("."):
            yield from _temporary(store, f"{folder}/{other}")
        elif other and f"{other}/plan.json" not in files and other != named:
            yield _note(f"{folder}/{other}", "is no registration", STRANGE)
        elif other == named:
            yield from _registration(store, folder, other, name, files)
        elif other and free:
            yield _leftover(f"{folder}/{other}", "was never registered: its run was ended before")
    for one in registrations:
        yield from _registration(store, folder, one, name, files)
    yield from _lease(store, f"{folder}/lease", done=False)


def _registration(
    store: Store, study: str, one: str, name: str, files: dict[str, float]
) -> Iterator[Finding]:
    folder = f"{study}/{one}"
    registered = plan = None
    try:
        registered = read_record(store.objects, f"{folder}/registration.json", Registration)
    except FileNotFoundError:
        yield _damage(f"{folder}/registration.json", "is missing", REREGISTER.format(folder))
    except UnreadableError as error:
        remedy = REREGISTER.format(folder)
        yield _unreadable(store, f"{folder}/registration.json", error, remedy)
    remedy = "mm1 run of the study's file writes it anew"
    try:
        plan = read_record(store.objects, f"{folder}/plan.json", Plan)
    except FileNotFoundError:
        yield _damage(f"{folder}/plan.json", "is missing", remedy)
    except UnreadableError as error:
        yield _unreadable(store, f"{folder}/plan.json", error, remedy)
    if plan and (plan.study != name or registration_name(plan) != one):
        yield _damage(f"{folder}/plan.json", "is of another registration", remedy)
    if registered and (registered.study != name or registered.hash != one.partition("-")[0]):
        what = "is of another registration"
        yield _damage(f"{folder}/registration.json", what, REREGISTER.format(folder))
    for key in files:
        first, _, rest = key.partition("/")
        if first == one and rest.startswith("."):
            yield from _temporary(store, f"{folder}/{rest}")
        elif first == one and _first(rest) in _KINDS:
            yield from _record(store, f"{folder}/{rest}", _KINDS[_first(rest)])
        elif first == one and _first(rest) not in ("", "plan.json", "registration.json"):
            yield _note(f"{folder}/{rest}", "is not of a registration", STRANGE)


_KINDS: dict[str, type[Config]] = {
    "looks": Look,
    "cancelled": Cancelled,
    "runs": RunTimes,
    "forecasts": Forecast,
}


def _record(store: Store, key: str, kind: type[Config]) -> Iterator[Finding]:
    if key.rpartition("/")[2].startswith("."):
        yield from _temporary(store, key)
        return
    try:
        read_record(store.objects, key.rstrip("/"), kind)
    except FileNotFoundError:
        yield _note(key, "is no record that belongs here", STRANGE)
    except UnreadableError as error:
        yield _unreadable(store, key, error, REMOVED)


def _registrations(store: Store, folder: str) -> list[str]:
    return [
        one
        for one in store.objects.children(folder)
        if store.objects.exists(f"{folder}/{one}/registration.json")
    ]


def _scratch(store: Store) -> Iterator[Finding]:
    folder = store.local / "scratch"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        place = f"scratch/{path.name}"
        if not STAGE_ID.fullmatch(path.name) or not path.is_dir():
            yield _note(place, "is no stage's scratch folder", STRANGE)
        elif store.is_done(path.name) and leases.may_be_taken(
            store.objects, store.lease_folder(path.name)
        ):
            yield _leftover(place, "is the scratch folder of a stage that is done")


def orphans(store: Store) -> Iterator[Finding]:
    """Finished stages, and scratch of others, that no registered study has.

    Nor read from stages of one: what `mm1 evaluate` asks of a study's stage is no study's own.
    None where a registration cannot be read: it may be of that one.
    """
    known: set[str] = set()
    for study in store.objects.children("studies"):
        for one in _registrations(store, f"studies/{study}"):
            try:
                plan = read_record(store.objects, f"studies/{study}/{one}/plan.json", Plan)
            except (FileNotFoundError, UnreadableError):
                return  # whose they are cannot be said
            known |= set(plan.stages)
    stages = [
        stage_id
        for prefix in store.objects.children("stages")
        for stage_id in store.objects.children(f"stages/{prefix}")
        if STAGE_ID.fullmatch(stage_id) and stage_id[:2] == prefix
    ]
    for stage_id in sorted(set(stages) - known):
        if store.is_done(stage_id) and not _reads_from(store, stage_id, known):
            place = f"stages/{stage_id[:2]}/{stage_id}"
            yield _note(place, "is a result that no study here has", "remove it if nobody needs it")
    folder = store.local / "scratch"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if STAGE_ID.fullmatch(path.name) and path.name not in known and path.is_dir():
            what = "is the scratch folder of a stage that no study here has"
            yield _note(f"scratch/{path.name}", what, "remove it if nobody needs it")


def _reads_from(store: Store, stage_id: str, known: set[str]) -> bool:
    """Whether a finished stage has inputs, and all of them are known."""
    try:
        inputs = set(store.stage(stage_id).inputs.values())
    except UserError:  # damaged, which is told elsewhere
        return False
    return bool(inputs) and inputs <= known


def _index(store: Store) -> Iterator[Finding]:
    """Whether what readers take from the index is what the stages' folders hold."""
    stages = [
        stage_id
        for prefix in store.objects.children("stages")
        for stage_id in store.objects.children(f"stages/{prefix}")
        if STAGE_ID.fullmatch(stage_id) and stage_id[:2] == prefix
    ]
    for stage_id in sorted(differing(store.objects, stages)):
        what = f"says something else than stages/{stage_id[:2]}/{stage_id}"
        yield _damage("index", what, "remove it: it is made anew from the folders")


# -- details -----------------------------------------------------------------------------------


def _damage(place: str, what: str, remedy: str) -> Finding:
    return Finding(kind="damage", place=place, what=what, remedy=remedy)


def _leftover(place: str, what: str) -> Finding:
    return Finding(kind="leftover", place=place, what=what, remedy=REMOVED)


def _note(place: str, what: str, remedy: str) -> Finding:
    return Finding(kind="note", place=place.rstrip("/"), what=what, remedy=remedy)


def _unreadable(store: Store, place: str, error: UnreadableError, remedy: str) -> Finding:
    can_be_repaired = isinstance(error, DamagedError)
    own = remedy if can_be_repaired else "make it readable for this user and version"
    return _damage(place, _why(store, error), own)


def _why(store: Store, error: UnreadableError) -> str:
    _, _, why = str(error).partition(" is damaged: ")
    return why or str(error).removeprefix(f"{store.root}/")


def _temporary(store: Store, key: str) -> Iterator[Finding]:
    written = store.objects.files(key.rpartition("/")[0]).get(key) if "/" in key else None
    if written is None and _is_local(store):
        with contextlib.suppress(OSError):
            written = (store.local / key).lstat().st_mtime
    if written is not None and time.time() - written > OLD_SECONDS:
        yield _leftover(key, "is a temporary file that was left")


def _first(name: str) -> str:
    return name.partition("/")[0]


def _is_local(store: Store) -> bool:
    return store.objects.local == Path(store.root)


def _is_file(store: Store, key: str) -> bool:
    return _is_local(store) and (store.local / key).is_file()


def _checksum(store: Store, key: str) -> str:
    if not _is_local(store):
        return hashlib.sha256(store.objects.read(key)).hexdigest()
    with open_file(store.local / key) as file:  # a checkpoint may be larger than memory
        return hashlib.file_digest(file, "sha256").hexdigest()
