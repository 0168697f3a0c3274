"""Raw files → a folder of shards that training reads: `mm1 data prepare SPEC.yaml --out FOLDER`.

Two passes, each input file by file in worker processes. The first decodes every image and puts bad
records away; what is dropped is then decided for all files at once. The second writes shards.
Interrupted, the same command goes on after the last shard of each file, if the files are still the
same; else what was seen of those that are is kept, and the shards are written anew. What is written
depends on the files' names and contents and the settings, not on where they lie, on workers or on
time.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PositiveInt, model_validator

from ablations.errors import MissingFileError, UserError
from ablations.schema import NOT_IDENTITY, Config
from ablations.shown_text import shown_url
from mm1_jax.config.bounds import Vocabulary
from mm1_jax.config.data import DataConfig, Kind
from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.files import urls
from mm1_jax.data.files.folder import Folder
from mm1_jax.data.own import formats, image_survey
from mm1_jax.data.own.cleaning import CleaningConfig, Decisions, cleaned, decide
from mm1_jax.data.own.inputs import Inputs, difference, listed
from mm1_jax.data.own.manifest import (
    MANIFEST,
    PROVENANCE,
    SHARDS,
    Manifest,
    Shard,
    TokenizerFacts,
    read_manifest,
    sha256,
    token_type,
)
from mm1_jax.data.own.quarantine import Quarantine, Quota
from mm1_jax.data.own.raw import BadRecord, RawDocument, RawImage
from mm1_jax.data.own.shard_writer import Rendered, images_of, write_shard
from mm1_jax.data.own.suitability import check_filled
from mm1_jax.data.sources.fingerprint import tokenizer_hash
from mm1_jax.data.sources.package_preparation import prepare
from mm1_jax.data.tokenizer import Tokenizer, load, tokenizer_file

Progress = Callable[[str, int, int], None]

MEGABYTE = 10**6
_WORK = "unfinished"  # below the folder; gone when it is finished
# What was seen of each file is kept by what the file is; what was written is of all of them
# together, and of no use once one is another.
_SURVEYS, _BEGUN = f"{_WORK}/surveys", f"{_WORK}/begun"
_INPUTS = f"{_BEGUN}/inputs.json"
_ENDLESS = Quota(share=1.0)


class PreparationSpec(Config):
    """What is prepared, and how. Places and processes do not decide the result.

    A caption stands after `caption:` unless `caption_prompt` is false; the evaluation asks with
    the same words. `tokenizer` is a `tokenizer.json` or a SentencePiece model; null takes the one
    that comes with the embedded data.
    """

    kind: Kind
    format: formats.Format
    urls: tuple[str, ...] = Field(min_length=1, json_schema_extra=NOT_IDENTITY)
    columns: dict[str, str | None] | None = None
    image_folder: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    min_similarity: float = Field(0.24, description="mmc4: images below are left out")
    cleaning: CleaningConfig = CleaningConfig()
    evaluation_images: tuple[str, ...] = Field(
        (), description="folders or lists of images that must not be trained on"
    )
    caption_prompt: bool = True
    template: Literal["plain", "vicuna", "chatml"] = Field(
        "plain", description="words around the turns of conversations"
    )
    tokenizer: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    vocabulary: Vocabulary = Field(1024, description="of the embedded tokenizer")
    shard_megabytes: PositiveInt = 256
    stored_side_pixels: PositiveInt | None = Field(
        None, description="larger images are stored with this longest side; null: as they came"
    )
    stored_images: Literal["encoded", "pixels"] = Field(
        "encoded", description="pixels: uncompressed, for small images that are read fast"
    )

    @model_validator(mode="after")
    def _kind_of_format(self) -> Self:
        if self.format == "conversations" and self.kind != "conversations":
            raise ValueError(
                f"kind: {self.kind} is not what format conversations holds; valid: conversations"
            )
        if self.kind == "conversations" and self.format not in formats.WITH_ANSWERS:
            raise ValueError(
                f"format: {self.format} holds no conversations; "
                f"valid: {', '.join(formats.WITH_ANSWERS)}"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """What of it decides the result, as plain values."""
        marked = [n for n, f in type(self).model_fields.items() if f.json_schema_extra]
        return self.model_dump(mode="json", exclude=set(marked))


@dataclass(frozen=True)
class _Task:
    """One input file. `number` is its place among the others, `key` what it is."""

    number: int
    key: str
    file: str
    spec: PreparationSpec
    out: str
    quota: Quota

    @property
    def survey(self) -> str:
        return f"{_SURVEYS}/{self.key}"

    @property
    def written(self) -> str:
        return f"{_BEGUN}/{self.number:05d}-written.json"

    @property
    def prefix(self) -> str:
        return f"{self.number:05d}-"

    def records(self) -> Iterator[RawDocument | BadRecord]:
        spec = self.spec
        return formats.read_file(
            spec.format, self.file, spec.columns, spec.image_folder, spec.min_similarity
        )


def prepare_own(
    spec: PreparationSpec,
    out: str,
    data_root: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Prepare a folder, or go on with it; one that is finished is left as it is.

    `progress(what, done, total)` is called as files are done.

    Raises:
        UserError: the folder holds data of other settings or files, an input is missing or of
            another format, or more records are bad than the quota allows.
    """
    report = progress or (lambda what, done, total: None)
    folder = Folder(out)
    started = time.monotonic()
    if folder.exists(MANIFEST):
        return _finished(spec, folder)
    note = f"{_WORK}/settings.json"
    if folder.exists(note):
        # A specification that was refused at its first file holds the folder for nobody.
        if any(name not in (note, _INPUTS) for name in folder.names(_WORK)):
            _same_settings(spec.settings(), json.loads(folder.read(note)), out)
    elif folder.is_local and Path(out).exists() and any(Path(out).iterdir()):
        raise UserError(f"{out} is not empty and holds no prepared data; choose another --out")
    files = formats.files(spec.format, spec.urls)
    inputs = _inputs(spec, files)
    with _alone(folder):
        folder.write(note, json.dumps(spec.settings()).encode())
        tokenizer = _keep_tokenizer(spec, data_root, folder)
        _keep_if_same(folder, inputs, tokenizer)
        return _prepared(spec, folder, files, inputs, tokenizer, workers, report, started)


def _finished(spec: PreparationSpec, folder: Folder) -> Manifest:
    """The manifest of a folder that is finished. UserError if it is of other settings or files."""
    manifest = read_manifest(folder.url)
    _same_settings(spec.settings(), manifest.settings, folder.url)
    try:
        provenance = json.loads(folder.read(PROVENANCE))
        before = Inputs.model_validate_json(json.dumps(provenance["inputs"]))
    except (MissingFileError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{folder.url} does not say which files it was prepared from; choose another --out"
        ) from None
    try:
        now = _inputs(spec, formats.files(spec.format, spec.urls))
    except UserError as error:
        raise UserError(
            f"{folder.url} is prepared, and what it was prepared from is not as it was: {error}"
        ) from None
    changed = difference(now, before)
    if changed:
        raise UserError(
            f"{folder.url} was prepared from other files: {changed}; choose another --out, or "
            "delete it to prepare it anew"
        )
    return manifest


def _inputs(spec: PreparationSpec, files: Sequence[str]) -> Inputs:
    evaluation = spec.evaluation_images and image_survey.images_named(spec.evaluation_images)
    return Inputs(
        files=listed(files),
        image_folder=spec.image_folder and shown_url(urls.absolute(spec.image_folder)),
        evaluation_images=listed(evaluation),
        tokenizer=spec.tokenizer and tokenizer_hash(spec.tokenizer),
    )


@contextmanager
def _alone(folder: Folder) -> Generator[None]:
    """Only one process of a machine prepares a folder. UserError for a second."""
    if not folder.is_local:
        yield
        return
    Path(folder.url).mkdir(parents=True, exist_ok=True)
    place = os.open(folder.url, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder.url} is being prepared by another process") from None
    finally:
        os.close(place)


def _keep_if_same(folder: Folder, inputs: Inputs, tokenizer: TokenizerFacts) -> None:
    """Throw away what was written of other inputs: what is dropped was decided with them."""
    ours = json.dumps({"inputs": inputs.model_dump(mode="json"), "sha256": tokenizer.sha256})
    if folder.exists(_INPUTS) and folder.read(_INPUTS) == ours.encode():
        return
    for below in (_BEGUN, "shards", "index", "tokens", "quarantine"):
        if folder.names(below):
            folder.remove(below)
    folder.write(_INPUTS, ours.encode())


def _prepared(
    spec: PreparationSpec,
    folder: Folder,
    files: Sequence[str],
    inputs: Inputs,
    tokenizer: TokenizerFacts,
    workers: int,
    report: Progress,
    started: float,
) -> Manifest:
    out = folder.url
    # A single bad file among many need not be the end; a single file stops at once.
    quota = spec.cleaning.quota if len(files) == 1 else _ENDLESS
    tasks = [
        _Task(number, inputs.key(about), file, spec, out, quota)
        for number, (file, about) in enumerate(zip(files, inputs.files, strict=True))
    ]
    surveys: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    with _processes(min(workers, len(tasks))) as each:
        for counts in each(_survey, [(task,) for task in tasks]):
            surveys.append(counts)
            _check_quota(surveys, spec.cleaning.quota, folder)
            report("examined files", len(surveys), len(tasks))
        decisions = _decided(spec, [_surveyed(folder, task) for task in tasks])
        given = [(task, decisions.of_file(task.file)) for task in tasks]
        for number, counts in enumerate(each(_write, given), start=1):
            dropped.update(counts)
            report("written files", number, len(tasks))

    shards = finished_shards(folder)
    told = "".join(shard.model_dump_json() + "\n" for shard in shards).encode()
    manifest = Manifest(
        kind=spec.kind,
        settings=spec.settings(),
        tokenizer=tokenizer,
        token_type=token_type(tokenizer.vocabulary),
        shards=len(shards),
        documents=sum(shard.documents for shard in shards),
        text_tokens=sum(shard.text_tokens for shard in shards),
        images=sum(shard.images for shard in shards),
        read=sum(counts["seen"] for counts in surveys),
        dropped=dict(sorted(dropped.items())),
        dropped_images=dict(sorted(decisions.counts.items())),
        quarantined=_summed(counts["bad"] for counts in surveys),
        quarantined_images=_summed(counts["bad_images"] for counts in surveys),
        left_out=_summed(counts["left_out"] for counts in surveys),
        shards_sha256=sha256(told),
    )
    try:
        check_filled(out, manifest)
    except UserError as error:
        listed_in = f"; what is bad is listed in {folder.place('quarantine')}"
        told = listed_in if manifest.quarantined or manifest.quarantined_images else ""
        raise UserError(f"{error.message}{told}; before another try, delete {out}") from None
    changed = difference(_inputs(spec, files), inputs)
    if changed:
        raise UserError(f"{changed}: changed while it was prepared; the same command begins anew")
    seconds = time.monotonic() - started
    provenance = {
        "urls": list(map(shown_url, spec.urls)),
        "inputs": inputs.model_dump(mode="json"),
        "workers": workers,
        "seconds": round(seconds, 1),
        "documents_per_second": round(manifest.documents / seconds, 1),
        "images_per_second": round(manifest.images / seconds, 1),
    }
    folder.write(PROVENANCE, (json.dumps(provenance, indent=2) + "\n").encode())
    folder.write(SHARDS, told)
    folder.write(MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    folder.remove(_WORK)
    return manifest


def _same_settings(
    ours: dict[str, Any], theirs: dict[str, Any], out: str, within: str = ""
) -> None:
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            key = within + name
            if isinstance(ours.get(name), dict) and isinstance(theirs.get(name), dict):
                _same_settings(ours[name], theirs[name], out, f"{key}.")
            raise UserError(
                f"{out} was prepared with {key}: {json.dumps(theirs.get(name))}, and the "
                f"specification says {json.dumps(ours.get(name))}; choose another --out"
            )


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def _keep_tokenizer(spec: PreparationSpec, data_root: Path, folder: Folder) -> TokenizerFacts:
    """Write the tokenizer that is to be used into the folder, as a recipe's data has it."""
    if spec.tokenizer is None:
        words = load(prepare(DataConfig(vocabulary=spec.vocabulary), data_root))
    else:
        words = load(Path(spec.tokenizer))
    with tempfile.TemporaryDirectory(prefix="mm1-prepare-") as scratch:
        words.save(Path(scratch))
        for path in Path(scratch).iterdir():
            folder.write(path.name, path.read_bytes())
        file = tokenizer_file(Path(scratch))
        return TokenizerFacts(
            file=file.name, sha256=sha256(file.read_bytes()), vocabulary=words.vocabulary
        )


@contextmanager
def _processes(workers: int) -> Generator[Callable[..., Iterator[Any]]]:
    """A function (what, arguments of each call) that gives the calls' results as they are done."""
    if workers == 1:
        yield lambda function, arguments: (function(*given) for given in arguments)
        return
    # Spawned: a fork would copy whatever threads the caller has.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:

        def each(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Any:
            futures = [pool.submit(function, *given) for given in arguments]
            return (future.result() for future in as_completed(futures))

        try:
            yield each
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _surveyed(folder: Folder, task: _Task) -> pa.Table:
    return pq.read_table(io.BytesIO(folder.read(f"{task.survey}/images.parquet")))


def _decided(spec: PreparationSpec, surveyed: Sequence[pa.Table]) -> Decisions:
    images = pa.concat_tables(surveyed).unify_dictionaries()
    if not spec.evaluation_images:
        return decide(images, spec.cleaning)
    evaluation = image_survey.survey_images(spec.evaluation_images, spec.cleaning.perceptual_hash)
    return decide(images, spec.cleaning, evaluation)


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _check_quota(surveys: Sequence[dict[str, Any]], quota: Quota, folder: Folder) -> None:
    for what, bad, seen in (
        ("records", "bad", "seen"),
        ("images", "bad_images", "seen_images"),
    ):
        reasons = _summed(counts[bad] for counts in surveys)
        count, total = sum(reasons.values()), sum(counts[seen] for counts in surveys)
        if count > quota.minimum and count > quota.share * total:
            told = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
            raise UserError(
                f"{count} of {total} {what} cannot be used ({told}), more than the quota of "
                f"{quota.share:.2%}; each is listed in {folder.place('quarantine')}"
            )


# -- what a worker does with one file ------------------------------------------------------------


def _survey(task: _Task) -> dict[str, Any]:
    """First pass: look at every image, put bad records away; how many there were."""
    folder = Folder(task.out)
    note, told = f"{task.survey}/counts.json", f"quarantine/{task.number:05d}.jsonl"
    if folder.exists(note):
        folder.write(told, folder.read(f"{task.survey}/quarantine.jsonl"))
        return json.loads(folder.read(note))
    with tempfile.TemporaryDirectory(prefix="mm1-prepare-") as scratch:
        bad = Path(scratch) / "quarantine.jsonl"
        try:
            with Quarantine(bad, task.quota) as quarantine:
                images = image_survey.survey(
                    _of_kind(quarantine.kept(task.records()), task.spec),
                    quarantine,
                    task.spec.cleaning.perceptual_hash,
                )
        finally:
            if bad.exists():
                folder.write(told, bad.read_bytes())
        folder.write(f"{task.survey}/quarantine.jsonl", bad.read_bytes())
    file = io.BytesIO()
    pq.write_table(images, file)
    folder.write(f"{task.survey}/images.parquet", file.getvalue())
    counts = {
        "seen": quarantine.seen,
        "seen_images": quarantine.seen_images,
        "bad": dict(quarantine.bad),
        "bad_images": dict(quarantine.bad_images),
        "left_out": dict(quarantine.left_out),
    }
    folder.write(note, json.dumps(counts).encode())
    return counts


def _of_kind(documents: Iterable[RawDocument], spec: PreparationSpec) -> Iterator[RawDocument]:
    """The same documents. UserError at the first that the specification's kind cannot be."""
    for document in documents:
        where = f"{document.origin.file}, record {document.origin.index}"
        if spec.kind == "text" and document.images:
            raise UserError(
                f"{where}: kind text has no images, found {len(document.images)}; "
                f"nearest: kind {'captions' if len(document.parts) == 2 else 'interleaved'}"
            )
        if spec.kind == "captions" and not document.images:
            raise UserError(
                f"{where}: kind captions needs an image, found none; nearest: kind text, or "
                "interleaved where only some have one"
            )
        if spec.kind == "conversations" and document.answers is None:
            raise UserError(
                f"{where}: kind conversations needs answers, found none; nearest: kind "
                f"{'interleaved' if document.images else 'text'}"
            )
        yield document


def _write(task: _Task, dropped: dict[int, dict[int, str]]) -> Counter[str]:
    """Second pass: the shards of one file; how many documents were dropped, by reason."""
    folder = Folder(task.out)
    note = task.written
    if folder.exists(note):
        return Counter(json.loads(folder.read(note)))
    tokenizer = folder_tokenizer(folder)
    counts: Counter[str] = Counter()
    done = [shard for shard in finished_shards(folder) if shard.name.startswith(task.prefix)]
    after = done[-1].read if done else 0  # documents that are in shards, or were dropped, already
    numbers: deque[int] = deque()  # of the documents that are being fetched
    seen = _digests(_surveyed(folder, task))

    def kept() -> Iterator[RawDocument]:
        read = 0
        for record in task.records():
            if isinstance(record, BadRecord):
                continue
            read += 1
            left = cleaned(record, dropped.get(record.origin.index, {}), task.spec.cleaning)
            if isinstance(left, str):
                counts[left] += 1
            elif read > after:
                numbers.append(read)
                yield left

    waiting: list[Rendered] = []
    size, read = 0, after
    limit = task.spec.shard_megabytes * MEGABYTE

    def finish() -> None:
        nonlocal size
        shard = write_shard(folder, f"{task.prefix}{len(done):03d}", waiting, tokenizer, read)
        folder.write(f"{_BEGUN}/shards/{shard.name}.json", shard.model_dump_json().encode())
        done.append(shard)
        waiting.clear()
        size = 0

    for document, missing in image_survey.fetched(kept()):
        read = numbers.popleft()
        if missing:
            raise UserError(
                f"{document.origin.file}, record {document.origin.index}: an image that was there "
                f"is gone ({next(iter(missing.values())).detail}); the same command goes on"
            )
        changed = next((i for i in document.images if not _is_one_of(i, document, seen)), None)
        if changed is not None:
            for place in (task.survey, _BEGUN):
                folder.remove(place)
            raise UserError(
                f"{document.origin.file}, record {document.origin.index}: an image changed while "
                f"it was prepared ({changed.url or 'in the file'}); the same command begins anew"
            )
        waiting.append(rendered(document, task.spec))
        size += waiting[-1].size_bytes
        if size >= limit:
            finish()
    if waiting:
        finish()
    folder.write(note, json.dumps(counts).encode())
    return counts


def _digests(images: pa.Table) -> dict[int, set[bytes]]:
    """Record → the checksums that its images had when they were looked at."""
    found: dict[int, set[bytes]] = {}
    for index, digest in zip(
        images["index"].to_pylist(), images["sha256"].to_pylist(), strict=True
    ):
        found.setdefault(index, set()).add(digest)
    return found


def _is_one_of(image: RawImage, document: RawDocument, seen: dict[int, set[bytes]]) -> bool:
    digest = hashlib.sha256(image.content or b"").digest()
    return digest in seen.get(document.origin.index, ())


def rendered(raw: RawDocument, spec: PreparationSpec) -> Rendered:
    """A document in the words that training uses."""
    parts: list[int | str] = []
    answers = raw.answers
    contents = images_of(raw, spec.stored_side_pixels, spec.stored_images)
    images = 0
    for part in raw.parts:
        if isinstance(part, RawImage):
            parts.append(images)
            images += 1
        else:
            parts.append(part)
    if spec.kind == "captions" and spec.caption_prompt and len(raw.texts) == 1:
        turn = templates.caption(raw.texts[0].strip())
        parts, answers = [*range(images), *turn], (False, True)
    elif spec.kind == "conversations" and answers is not None:
        exchanges = templates.exchanges_of(parts, answers)
        said = templates.converse(exchanges, templates.template_of(spec.template))
        return Rendered(Document(raw.name, *said), contents, raw)
    elif spec.kind in ("interleaved", "text"):
        parts = _spaced(parts)
    document = Document(raw.name, tuple(parts), answers)
    return Rendered(document, contents, raw)


def _spaced(parts: Sequence[int | str]) -> list[int | str]:
    """A text that follows another, also across an image, is apart from it by a space at least."""
    spaced: list[int | str] = []
    before = ""
    for part in parts:
        if isinstance(part, str):
            if before and not before[-1].isspace() and not part[:1].isspace():
                part = f" {part}"
            before = part
        spaced.append(part)
    return spaced


def finished_shards(folder: Folder) -> list[Shard]:
    """The shards of an unfinished folder, in their order."""
    names = [name for name in folder.names(f"{_BEGUN}/shards") if name.endswith(".json")]
    return [Shard.model_validate_json(folder.read(name)) for name in names]


def folder_tokenizer(folder: Folder) -> Tokenizer:
    """The tokenizer of a folder of prepared data."""
    with tempfile.TemporaryDirectory(prefix="mm1-prepare-") as scratch:
        for name in _TOKENIZER_FILES:
            if folder.exists(name):
                (Path(scratch) / name).write_bytes(folder.read(name))
        return load(Path(scratch))
