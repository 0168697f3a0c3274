"""The scratch folder of a stage whose store is in a bucket, shared by all machines.

A runner works in a folder of its machine. What is in it (checkpoints, what was answered so far) is
kept in the store beside it while the stage runs, so that another machine goes on from there:

    scratch/<id>/manifest.json      name of each file → checksum of its content, put last
    scratch/<id>/<checksum>         contents, whatever they are called

On a store that is a folder there is nothing to do: its scratch folders are where all see them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from pathlib import Path

from ablations.errors import UserError
from ablations.stage import PRINTED
from sweeps.objects import Objects, is_inside
from sweeps.store import Store
from sweeps.worker_output import STACK

PUSH_SECONDS = 60.0  # between two looks at what has changed
QUICK_TRIES = 5  # at a folder in which things are just being renamed
MANIFEST = "manifest.json"
KEPT = ".kept"  # in the folder: checksum of the manifest that it was last brought in line with
# Of this attempt or this machine alone: what is printed, marks, the other processes of a gang.
_OWN = re.compile(rf"(?:{re.escape(PRINTED)}|{re.escape(STACK)}|\.[^/]*|process-\d+(?:/.*)?)")


@contextlib.contextmanager
def shared(store: Store, stage_id: str) -> Generator[None]:
    """While a stage runs that this process holds the lease of.

    Begins with what another machine has kept last, if that is another than this one; an exception
    (a stop is one) keeps what there is before it goes on its way.
    """
    if store.objects.local == Path(store.root):
        yield
        return
    scratch = SharedScratch(store.objects, stage_id, store.scratch(stage_id))
    scratch.pull()
    ended = threading.Event()
    thread = threading.Thread(target=scratch.keep_pushing, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        scratch.push_or_say()
        raise
    finally:
        ended.set()
        thread.join()


class SharedScratch:
    """One stage's scratch folder, and what the store has of it."""

    def __init__(self, objects: Objects, stage_id: str, folder: Path):
        self._objects, self._key, self._folder = objects, f"scratch/{stage_id}", folder
        self._seen: Mapping[str, tuple[int, ...]] | None = None  # as it was pushed last
        self._known: dict[tuple[int, ...], str] = {}  # what a file was → its checksum
        self._said = False

    def pull(self) -> None:
        """Bring the folder to what was kept last, unless that was kept from here."""
        try:
            told = self._objects.read(f"{self._key}/{MANIFEST}")
        except FileNotFoundError:
            return
        mark = self._folder / KEPT
        if mark.is_file() and mark.read_text(encoding="utf-8") == _checksum(told):
            return  # what is here is that, or newer
        new = Path(tempfile.mkdtemp(prefix=".pull-", dir=_made(self._folder.parent)))
        try:
            for name, checksum in json.loads(told)["files"].items():
                if not is_inside(name):
                    raise UserError(f"{self._objects.root}/{self._key}: {name!r} leads out of it")
                data = self._objects.read(f"{self._key}/{checksum}")
                if _checksum(data) != checksum:
                    raise ValueError(f"{name} is not what was written")
                _made((new / name).parent)
                (new / name).write_bytes(data)
        except (ValueError, KeyError, AttributeError, FileNotFoundError) as error:
            shutil.rmtree(new)
            print(f"mm1: what {self._key} keeps cannot be used ({error}); begun anew", flush=True)
            return
        (new / KEPT).write_text(_checksum(told), encoding="utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        new.replace(self._folder)

    def keep_pushing(self, ended: threading.Event) -> None:
        """Push every now and then, until the stage has ended."""
        while not ended.wait(PUSH_SECONDS):
            self.push_or_say()

    def push_or_say(self) -> None:
        """As `push`; trouble costs the stage nothing but that another machine begins earlier."""
        try:
            self.push()
        except Exception as error:
            if not self._said:
                print(f"mm1: checkpoints are not shared: {error}", file=sys.stderr, flush=True)
            self._said = True

    def push(self) -> bool:
        """Keep what is in the folder; False where it was not still for long enough, or is not new.

        All files are those of one moment, as after a kill: they are linked at once and brought
        later, and one that was written to meanwhile brings nothing.
        """
        with tempfile.TemporaryDirectory(prefix=".push-", dir=_made(self._folder.parent)) as place:
            files = self._linked(Path(place))
            if files is None or files == self._seen:
                return False
            manifest: dict[str, str] = {}
            for number, (name, was) in enumerate(files.items()):
                if was not in self._known:
                    link = Path(place) / str(number)
                    data = link.read_bytes()
                    if _facts(link) != was:
                        return False
                    self._known[was] = checksum = _checksum(data)
                    self._objects.write(f"{self._key}/{checksum}", data)
                manifest[name] = self._known[was]
        told = json.dumps({"files": manifest}, indent=1).encode()
        self._objects.write(f"{self._key}/{MANIFEST}", told)
        (self._folder / KEPT).write_text(_checksum(told), encoding="utf-8")
        self._seen = files
        self._known = {was: self._known[was] for was in files.values()}
        for name in self._objects.children(self._key):
            if name != MANIFEST and name not in manifest.values():
                self._objects.remove(f"{self._key}/{name}")
        return True

    def _linked(self, place: Path) -> Mapping[str, tuple[int, ...]] | None:
        """What each file is, with a link to the n-th in `place`; None where they keep changing."""
        for _ in range(QUICK_TRIES):
            for old in place.iterdir():
                old.unlink()
            with contextlib.suppress(FileNotFoundError):
                files = self._files()
                for number, name in enumerate(files):
                    os.link(self._folder / name, place / str(number))
                if self._files() == files:
                    return files
        return None

    def _files(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for at, folders, names in os.walk(self._folder):
            folders.sort()
            for name in sorted(names):
                path = Path(at) / name
                inside = path.relative_to(self._folder).as_posix()
                if not _OWN.fullmatch(inside):
                    found[inside] = _facts(path)
        return found


def _facts(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
