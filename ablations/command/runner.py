"""Runs one step of a command workload: from a resolved config to rows of the result table.

The command gets a config file, an output folder and a seed; what it prints is passed on, its
results are read while it writes them, and its whole tree of processes ends with this function.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ablations import identity
from ablations.command import files, gang, placeholders, standing
from ablations.command.examples import write_examples
from ablations.command.process import Process, how_it_ended
from ablations.command.results import Measured, Results, as_rows, lost_at_its_end
from ablations.errors import UserError, shortened
from ablations.schema import Config
from ablations.shown_text import visible
from ablations.stage import PRINTED, Context, Gang, ResultRow, StageStopped, own_folder
from ablations.workload import Code

WORK = "command"  # in the scratch folder: all that a run of a command needs
RUN = "ablations.command.runner:run"
POLL_SECONDS = 0.25
REPORT_SECONDS = 1.0  # between two reports of progress
TIMEOUT_GRACE_SECONDS = 10.0
KEPT_BYTES = 2**20  # of what is printed: its end
STDERR_BYTES = 4_000  # of the end of stderr, in the record of a failure
MOST_WATCHED = 20_000  # files of the working folder
MOST_NAMED = 5
# Pools of threads that a library starts; as many as the step has cores.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
# Of this process and its scheduler, nothing that a command of somebody else's should see.
_OURS = re.compile(r"RAY_.*|PYTHONPATH|NPROC|XLA_FLAGS|JAX_.*|TF_CPP_MIN_LOG_LEVEL")
_DEVICES = re.compile(r"--xla_force_host_platform_device_count=\d+")
# What YAML reads as the end of a line, or not at all, where it is not written as an escape.
_NO_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class CommandStage(Config):
    """A step of a command workload with its resolved config: all that a run needs."""

    step: str
    command: tuple[str, ...]
    config: dict[str, Any]
    config_name: str = "config.yaml"
    folder: str  # working folder
    environment: dict[str, str] = Field({})
    results: str = ""
    step_key: str = "step"
    seed_key: str = ""
    examples: str = ""
    metrics: dict[str, Measured] = Field({})
    timeout: float | None = None
    grace: float
    resumable: bool = False
    cpu: float | None = None  # cores that the study says; else what this process has
    home: str  # folder that code and data are relative to
    commit: str = ""  # that it runs at; none: the files as they are
    code_here: tuple[str, ...] = ()  # the files of the code, where it does not stand as planned
    code: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    data_fingerprint: str = ""


class CommandError(UserError):
    """The command itself failed: the same again would only fail again."""


def run(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Run a step and read what it measured.

    Raises:
        UserError: the command failed, took too long, or kept no results of the form.
        RuntimeError: it was killed from outside, which may go better the next time.
        StageStopped: a stop was asked for, and the command has ended.
    """
    stage = CommandStage.model_validate_json(json.dumps(config))
    stage = standing_here(stage, own_folder(context.scratch, context.gang) / "checkout")
    check_data(stage)
    if context.gang is not None and context.gang.index:
        _follow(stage, seed, inputs, context, context.gang)
        return []
    folders = Folders(stage, context.scratch, context.output)
    if context.gang is not None:
        gang.begin(folders.work, context.output)
    before = Watched(stage, (context.scratch, context.output))
    printed = Printed(context.scratch / PRINTED)
    results = results_of(stage, folders)
    reports = Reports(context.report)

    def ends(seconds: float) -> str:
        late = stage.timeout is not None and seconds > stage.timeout
        return "stop" if context.stop_requested() else "timeout" if late else ""

    arguments, environment = started_with(stage, seed, inputs, folders, context.gang)
    ending = carry_out(stage, arguments, environment, printed, results, reports, ends)
    if ending.asked == "stop":
        raise StageStopped
    if ending.asked:
        raise printed.told(
            CommandError(f"{stage.step} did not end within its timeout of {stage.timeout:g} s")
        )
    # Which of several Pythons it was; its arguments follow from the stage.
    program = shutil.which(arguments[0], path=environment.get("PATH")) or arguments[0]
    context.record({"program": program})
    if ending.code:
        raise failure(stage, ending.code, printed)
    try:
        rows = measured(stage, folders, results, reports)
    except UserError as error:
        raise printed.told(CommandError(error.message)) from None
    if lost := lost_at_its_end(results.numbers):
        context.record({"diverged_by": lost})
        printed.write(2, f"mm1: it diverged: {', '.join(lost)} in the end\n".encode())
    folders.keep(context.output)
    if told := before.told():
        context.record({"wrote_elsewhere": told})
        printed.write(2, f"mm1: {told}\n".encode())
    return rows


def _follow(
    stage: CommandStage, seed: int, inputs: Mapping[str, Path], context: Context, several: Gang
) -> None:
    """Run a step along with process 0 of a gang, which reads the results and keeps the time."""
    gang.wait_for_first(context.scratch / WORK, context.output, context.stop_requested)
    own = own_folder(context.scratch, several)
    folders = Folders(stage, context.scratch, context.output, own)
    printed, reports = Printed(own / PRINTED), Reports(context.report)
    started = started_with(stage, seed, inputs, folders, several)
    ending = carry_out(
        *(stage, *started, printed, None, reports),
        lambda seconds: "stop" if context.stop_requested() else "",
    )
    if ending.asked:
        raise StageStopped
    if ending.code:
        raise failure(stage, ending.code, printed)


def standing_here(stage: CommandStage, own: Path) -> CommandStage:
    """A step with its folders as they are on this machine (`ablations.command.standing`)."""
    folders = Path(stage.home), Path(stage.folder)
    home, folder = standing.stand(*folders, stage.commit, stage.data, own)
    if home == folders[0]:
        return stage
    planned = standing.code_parts(folders[0], stage.commit, stage.code)
    here = {"home": str(home), "folder": str(folder), "code_here": tuple(planned)}
    return stage.model_copy(update=here)


def travelling(config: Mapping[str, Any]) -> standing.Travelling:
    """What a stage of a command needs of the machine that it was planned on."""
    stage = CommandStage.model_validate_json(json.dumps(config))
    folders = Path(stage.home), Path(stage.folder)
    return standing.Travelling(*folders, stage.commit, stage.code, stage.data)


@dataclass(frozen=True)
class Ending:
    """How a run of a command ended: by itself, with a code, or because it was asked to."""

    code: int
    asked: str = ""  # why it was asked to end, "" where it was not
    obeyed: bool = True  # whether it ended within its grace period


def carry_out(
    stage: CommandStage,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    printed: Printed,
    results: Results | None,
    reports: Reports,
    ends: Callable[[float], str],
) -> Ending:
    """Run a command; `ends(seconds)` says why it has to end now, "" while it may go on.

    Without `results` it is another process of a gang that has them.
    """

    def heard(stream: int, chunk: bytes) -> None:
        printed.write(stream, chunk)
        if stream == 1 and results is not None:
            results.heard(chunk)

    started = time.monotonic()
    with Process(arguments, Path(stage.folder), environment, heard) as process:
        while not process.listen(POLL_SECONDS):
            try:
                for step, numbers in results.poll() if results is not None else ():
                    reports.take(step, numbers)
            except UserError as error:
                raise printed.told(CommandError(error.message)) from None
            if why := ends(time.monotonic() - started):
                grace = TIMEOUT_GRACE_SECONDS if why == "timeout" else stage.grace
                process.stop()
                obeyed = process.listen(grace)
                if not obeyed:
                    process.kill()
                    process.listen(TIMEOUT_GRACE_SECONDS)
                return Ending(process.code or 0, why, obeyed)
        return Ending(process.code or 0)


def results_of(stage: CommandStage, folders: Folders) -> Results:
    """Where the results of a run are read."""
    keys = [metric.key for metric in stage.metrics.values()]
    return Results(stage.results, folders.output, keys, stage.step_key)


def measured(
    stage: CommandStage, folders: Folders, results: Results, reports: Reports
) -> list[ResultRow]:
    """The rows of a run that has ended well; its examples are put beside its output.

    Raises:
        UserError: results or examples are not of the form.
    """
    for step, numbers in results.poll(last=True):
        reports.take(step, numbers)
    reports.flush()
    rows = as_rows(stage.step, results.numbers, stage.metrics)
    write_examples(stage.examples, folders.output, Path(stage.folder))
    return rows


def started_with(
    stage: CommandStage,
    seed: int,
    inputs: Mapping[str, Path],
    folders: Folders,
    several: Gang | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment that a command is started with; writes its config file."""
    config = json.loads(json.dumps(stage.config))
    if stage.seed_key:
        *above, last = stage.seed_key.split(".")
        (placeholders.at(config, ".".join(above)) if above else config)[last] = seed
    config_file = folders.own / stage.config_name
    config_file.write_text(config_text(config), encoding="utf-8")
    values = placeholders.Values(
        config_file=str(config_file),
        config=config,
        seed=seed,
        output=str(folders.output),
        scratch=str(folders.scratch),
        inputs={name: str(folder) for name, folder in inputs.items()},
    )
    environment = {name: text for name, text in os.environ.items() if not _OURS.fullmatch(name)}
    environment |= {name: _threads(stage, name) for name in THREADS}
    environment |= _simulated()
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
    environment |= {} if several is None else gang.variables(several)
    environment |= {name: values.filled(text) for name, text in stage.environment.items()}
    return values.arguments(stage.command), environment


def _threads(stage: CommandStage, name: str) -> str:
    """How many threads a library starts: one a core that the study says, else the worker's."""
    return os.environ.get(name, "1") if stage.cpu is None else str(max(1, int(stage.cpu)))


def _simulated() -> dict[str, str]:
    """Variables that make JAX simulate the devices that this process holds, where it does."""
    found = _DEVICES.search(os.environ.get("XLA_FLAGS", ""))
    return {"XLA_FLAGS": found[0]} if found else {}


def config_text(config: Mapping[str, Any]) -> str:
    """A config as text that every reader of JSON and of YAML 1.1 or 1.2 reads as the same values.

    YAML of the years before 2009, which most readers still speak, takes `1e-05` for a text and
    `on` for a truth: numbers get a point, and texts are quoted.
    """

    def written(value: Any, indent: str) -> str:
        inner = f"{indent}  "
        if isinstance(value, Mapping) and value:
            parts = (
                f"{inner}{_text(str(key))}: {written(one, inner)}" for key, one in value.items()
            )
            return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
        if isinstance(value, list | tuple) and value:
            return "[" + ", ".join(written(one, inner) for one in value) + "]"
        if isinstance(value, float) and math.isfinite(value):
            digits, mark, power = repr(value).partition("e")
            return f"{digits}{'' if '.' in digits else '.0'}{mark}{power}"
        return _text(value)

    return written(config, "") + "\n"


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def check_data(stage: CommandStage) -> None:
    """Raise `UserError` where the data is not what the study was planned with."""
    if files.data_fingerprint(Path(stage.home), stage.data) != stage.data_fingerprint:
        raise UserError(
            f"the data here ({', '.join(stage.data)}) is not what the study was planned with; "
            "plan it anew"
        )


class Folders:
    """Where a run of a step writes.

    A step that is not resumable begins with empty folders; one that is finds what it left.
    """

    def __init__(self, stage: CommandStage, scratch: Path, output: Path, own: Path | None = None):
        """`own`: of another process than the first of a gang, which shares the rest with it."""
        self.work = scratch / WORK
        if not stage.resumable and own is None:
            shutil.rmtree(self.work, ignore_errors=True)
        self.own = own or self.work  # of this process, for its config file
        self.scratch = self.work / "scratch"
        self.output = self.work / "output" if stage.resumable else output
        for folder in (self.work, self.own, self.scratch, self.output):
            folder.mkdir(parents=True, exist_ok=True)

    def keep(self, kept: Path) -> None:
        """Put the output where it is kept; a link to something in it becomes what it names."""
        for path in sorted(self.output.rglob("*")):
            if not path.is_symlink():
                continue
            target = path.resolve()
            if not target.exists() or not target.is_relative_to(self.output.resolve()):
                raise CommandError(
                    f"{path.relative_to(self.output)} in the output is a link to {target}; "
                    "copy it, or write it to {scratch}"
                )
            path.unlink()
            (shutil.copytree if target.is_dir() else shutil.copy2)(target, path)
        if self.output != kept:
            for path in sorted(self.output.iterdir()):
                shutil.move(path, kept / path.name)


class Watched:
    """What lies in a step's working folder and decides results, before and after a run."""

    def __init__(self, stage: CommandStage, own: Iterable[Path]):
        self._stage = stage
        self._own = [folder.resolve() for folder in own]
        self._code = self._code_now()
        self._seen = dict(self._files())

    def _code_now(self) -> str:
        stage = self._stage
        if not stage.code_here:
            return identity.fingerprint_of(Code(folder=stage.home, files=stage.code))
        there = [Path(stage.home) / name for name in stage.code_here]
        parts = files.parts_of([path for path in there if path.is_file()], Path(stage.home))
        return identity.fingerprint(parts)

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Size and time of change of what lies in the folder, two levels deep."""
        root = Path(self._stage.folder).resolve()
        count = 0
        for place, folders, names in os.walk(root):
            here = Path(place)
            depth = len(here.relative_to(root).parts)
            folders[:] = sorted(
                name
                for name in folders
                if depth < 2
                and not name.startswith(".")
                and name != "__pycache__"
                and not any(one.is_relative_to(here / name) for one in self._own)
            )
            for name in names:
                count += 1
                if count > MOST_WATCHED:
                    return
                with contextlib.suppress(OSError):
                    status = (here / name).stat()
                    key = (here / name).relative_to(root).as_posix()
                    yield key, (status.st_size, status.st_mtime_ns)

    def changed(self) -> list[str]:
        """Files of the working folder that are new or changed."""
        return [name for name, stamp in self._files() if self._seen.get(name) != stamp]

    def told(self) -> str:
        """What to say of files that the command seems to have written beside its output, or "".

        Raises:
            UserError: among them is code, so that nobody knows which the result is of.
        """
        changed = self.changed()
        named = ", ".join(changed[:MOST_NAMED]) + (", …" if len(changed) > MOST_NAMED else "")
        if self._code_now() != self._code:
            raise CommandError(
                f"the code changed while {self._stage.step} ran ({named or 'see git status'}), so "
                "its result belongs to neither; run again, and let the command write to {output}"
            )
        if not changed:
            return ""
        return (
            f"{named} changed in the working folder while {self._stage.step} ran: trials that run "
            "at the same time would overwrite each other's; {output} is each one's own"
        )


class Printed:
    """Passes on what a command prints, and keeps the end of it.

    Where this process prints into the file of which a stage's output is shown, that file stays
    bounded: it is begun anew with the end of what was printed.
    """

    def __init__(self, shown_file: Path, echo: Callable[[bytes], None] | None = None):
        self._file, self._echo = shown_file, echo or (lambda chunk: _write(1, chunk))
        self._end = {0: bytearray(), 2: bytearray()}  # of both streams together, and of stderr
        self._since = self._left_out = 0

    def write(self, stream: int, chunk: bytes) -> None:
        """Something was printed to a stream, 1 or 2."""
        for number, most in ((0, KEPT_BYTES), (2, STDERR_BYTES)):
            if number in (0, stream):
                end = self._end[number]
                end += chunk
                if len(end) > 2 * most:
                    del end[:-most]
        self._echo(chunk)
        self._since += len(chunk)
        if self._since > 2 * KEPT_BYTES:
            self._begin_anew()

    def _begin_anew(self) -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(1), self._file.stat()):
                kept = bytes(self._end[0][-KEPT_BYTES:])
                self._left_out += self._since - len(kept)
                os.ftruncate(1, 0)
                os.lseek(1, 0, os.SEEK_SET)
                _write(1, f"… {self._left_out:,} bytes left out …\n".encode() + kept)
                self._since = len(kept)
                return
        self._since = 0

    @property
    def stderr(self) -> str:
        """The end of what it printed to stderr."""
        return self._text(2)

    @property
    def last_words(self) -> str:
        """The last line it printed, to stderr if there is one, "" where it said nothing."""
        lines = (self.stderr or self._text(0)).splitlines()
        return shortened(lines[-1].strip(), 300) if lines else ""

    def _text(self, number: int) -> str:
        text = self._end[number][-STDERR_BYTES:].decode("utf-8", "replace")
        return visible(_COLOUR.sub("", text)).strip()

    def told(self, error: Exception) -> Exception:
        """The error with the end of stderr in its record."""
        if self.stderr:
            error.add_note(f"the end of what it printed to stderr:\n{self.stderr}")
        return error


def _write(number: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    with contextlib.suppress(OSError):  # whoever listened is gone
        while view:
            view = view[os.write(number, view) :]


class Reports:
    """Passes on progress, not more often than somebody can look."""

    def __init__(self, report: Callable[[int, Mapping[str, float]], None]):
        self._report = report
        self._at = -math.inf
        self._waiting: tuple[int, dict[str, float]] | None = None

    def take(self, step: int, numbers: Mapping[str, float]) -> None:
        """A row came."""
        known = self._waiting[1] if self._waiting and self._waiting[0] == step else {}
        self._waiting = step, {**known, **numbers}
        if time.monotonic() - self._at > REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Report what is waiting."""
        if self._waiting is not None:
            self._report(*self._waiting)
            self._at, self._waiting = time.monotonic(), None


def failure(stage: CommandStage, code: int, printed: Printed) -> Exception:
    """The error of a command that failed, with the end of its stderr."""
    said = f": {printed.last_words}" if printed.last_words else "; it printed nothing"
    message = f"{stage.step} ({stage.command[0]}) ended with {how_it_ended(code)}{said}"
    hint = rejected(stage.config, printed.stderr)
    # A signal comes from outside more often than not: no memory, a machine that goes down.
    made = RuntimeError(message) if code < 0 else CommandError(message + hint)
    return printed.told(made)


_REJECTS = re.compile(
    r"unrecogni[sz]ed|unexpected|unknown|invalid|not in struct|no such option|KeyError|"
    r"AttributeError|extra inputs|not permitted|could not override|TypeError",
    re.IGNORECASE,
)


def rejected(config: Mapping[str, Any], stderr: str) -> str:
    """The end of a message where a script seems to have refused a key of the config, or ""."""
    if not _REJECTS.search(stderr):
        return ""
    end = "\n".join(stderr.splitlines()[-5:])
    for path, _ in placeholders.leaves(config):
        names = (path, path.rpartition(".")[2])
        if any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]*\w)", end) for name in names):
            return f" (it seems to refuse the config's {path})"
    return ""
