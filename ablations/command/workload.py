"""A command, or steps of commands, as a workload: what decides each, and what it measures.

    pretrain ──► finetune ──► test        `needs`, or `{input:pretrain}` in a command

A step is one stage of a trial. It is decided by its command, the keys of the config that it reads,
its variables, code and data, so steps that read the same run once for all arms. A step that takes
no seed and measures nothing is one for all seeds, too.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations import identity
from ablations.command import files, placeholders, standing
from ablations.command.placeholders import CONFIG, INPUT, OVERRIDES, SEED, Placeholder
from ablations.command.results import Measured, dotted
from ablations.command.runner import RUN, CommandStage
from ablations.command.spec import CommandSpec, StepSpec
from ablations.errors import UserError, nearest, shown
from ablations.few import few
from ablations.fingerprints import canonical
from ablations.own_workload import Fail, MetricSpec, OwnWorkload, fail_below
from ablations.settings import MappingSchema, level_name
from ablations.workload import Asked, Code, Graph, Work
from ablations.workload import Fail as FailOfPath
from ablations.yaml_files import KeyPath

READING = 1  # of results, `ablations.command.results`: another number runs everything anew
_INTERPRETERS = re.compile(r"(python[\d.]*|bash|sh|zsh|dash|node|Rscript|julia|perl|ruby)")
_MODULE_OPTIONS = ("-m", "-c", "-e", "-")


REVISION = "code"  # path of an arm's revision of git, where the base has no such key of its own
HERE = "here"  # level of it: the files as they are


@dataclass(frozen=True)
class ConfigSchema(MappingSchema):
    """Any YAML or JSON, and `code: REVISION`; `opened` is told of a base that was read.

    `revised` gives the commit of a revision, or fails; None where the base has a key `code`.
    """

    opened: Callable[[Path, Mapping[str, Any]], None] = lambda path, base: None
    revised: Callable[[], Callable[[str], str] | None] = lambda: None

    def load(self, path: Path) -> dict[str, Any]:
        """Read a config file. Raises `UserError`."""
        base = super().load(path)
        self.opened(path, base)
        return base

    def level_of(self, base: dict[str, Any], path: str) -> str:
        """What the base has at a path."""
        if path == REVISION and path not in base:
            return HERE
        return super().level_of(base, path)

    def assign(
        self, base: dict[str, Any], written: Mapping[str, Any], fail: FailOfPath
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The base with some paths set, a revision as the commit that it means."""
        values = self.as_paths(written, fail)
        commit_of = self.revised()
        if commit_of is None or REVISION not in values:
            return super().assign(base, values, fail)
        revision = values.pop(REVISION)
        tree, dropped = super().assign(base, values, fail)
        tree = {key: value for key, value in tree.items() if key != REVISION}
        if revision == HERE:
            return tree, dropped
        try:
            return {**tree, REVISION: commit_of(level_name(revision))}, dropped
        except UserError as error:
            fail(REVISION, f"{REVISION}: {error.message}")


class CommandWorkload(OwnWorkload):
    """`ablations.workload.Workload` of commands; `home` is the folder of the study file.

    Raises:
        UserError, or what `fail` raises: a program, script, file or folder that is not there, a
            placeholder of a step that there is not, steps that need one another in a circle.
    """

    name = "command"

    def __init__(self, spec: CommandSpec, home: Path, fail: Fail = fail_below):
        self.home = home.absolute()
        self._fail = fail
        self._several = bool(spec.steps)
        self._config_name = "config.yaml"
        self.steps = self._in_order(spec.all_steps())
        super().__init__(self.steps, self._at, fail)
        for name, step in self.steps.items():
            self._check_program(name, step)
            self._check_files(name, step)
        # Of many arms, so worked out once: (step, commit) → fingerprint.
        self._code = {
            (name, ""): identity.fingerprint_of(self._code_of(step))
            for name, step in self.steps.items()
        }
        self._has_code = False  # a key of the base's own
        self._data = {
            name: files.data_fingerprint(self.home, step.data) for name, step in self.steps.items()
        }
        used = {one.name for step in self.steps.values() for one in step.braces}
        if not used & {CONFIG, OVERRIDES}:
            self._fail(
                ("steps",) if self._several else ("command",),
                "neither {config} nor {overrides} is in it, so nothing that is varied would reach "
                "it",
            )

    # -- the protocol ----------------------------------------------------------------------------

    @cached_property
    def schema(self) -> ConfigSchema:
        """Whatever the base has."""
        return ConfigSchema(opened=self._opened, revised=self._revised)

    @property
    def means(self) -> Any:
        """The commands and the metrics as they are declared."""
        return {
            name: {
                "command": step.words,
                "reads": step.reads,
                "environment": step.environment,
                "metrics": {key: one.model_dump() for key, one in step.metrics.items()},
            }
            for name, step in self.steps.items()
        }

    def graph(self, config: Any, needed: Iterable[Asked], runners: Mapping[str, str]) -> Graph:
        """The steps of one config."""
        works: dict[str, Work] = {}
        for name, step in self.steps.items():
            works[name] = self._work(name, step, config, works)
        read = [source for work in works.values() for source in work.inputs.values()]
        main = [name for name in works if name in read] or list(works)
        once = [f"one run of {name}" for name, work in works.items() if work.pinned]
        return Graph(works=works, answers=self.answers(), main=main[-1], shared=once)

    def warnings(self, base: Any) -> Iterator[str]:
        """Beside resources: steps without a seed, keys nobody reads, scripts git does not track."""
        yield from super().warnings(base)
        for name, step in self.steps.items():
            if step.metrics and not self._seeded(name):
                yield (
                    f"{self._called(name)} takes no {{seed}} (nor a seed_key): every seed is the "
                    "same run, and says nothing about chance"
                )
        read = [set(self._read_paths(step, base)) for step in self.steps.values()]
        unread = [path for path, _ in placeholders.leaves(base) if not any(path in r for r in read)]
        if unread:
            yield f"no step reads {few(unread, 5)}: varying it changes nothing"
        if any(step.code is None for step in self.steps.values()):
            loose = files.untracked_sources(self.home)
            if loose:
                yield (
                    f"git does not track {', '.join(loose[:5])}{', …' if len(loose) > 5 else ''}: "
                    "a change of it would go unnoticed; git add it, or say code: […]"
                )

    # -- one step --------------------------------------------------------------------------------

    def _work(
        self, name: str, step: StepSpec, config: Mapping[str, Any], before: Mapping[str, Work]
    ) -> Work:
        read = subset(config, set(self._read_paths(step, config)))
        commit = "" if self._has_code else config.get(REVISION, "")
        if (name, commit) not in self._code:
            self._code[name, commit] = identity.fingerprint_of(self._code_of(step, commit))
        measured = {
            metric: Measured(
                key=_key(metric, one), best=(one.goal or "") if one.value == "best" else ""
            )
            for metric, one in step.metrics.items()
        }
        stage = CommandStage(
            step=name,
            command=step.words,
            config=read,
            config_name=self._config_name,
            folder=str(self._folder(step)),
            environment=step.environment,
            results=step.results,
            step_key=step.step_key,
            seed_key=step.seed_key,
            examples=step.examples,
            metrics=measured,
            timeout=step.timeout,
            grace=step.grace,
            resumable=step.resumable,
            cpu=step.resources.cpu,
            home=str(self.home),
            commit=commit,
            code=step.code or (),
            data=step.data,
            data_fingerprint=self._data[name],
        )
        code = self._code_of(step, commit)
        decided = identity.decides(
            kind=name,
            config=canonical(_affecting(stage, step)),
            data=stage.data_fingerprint,
            code=self._code[name, commit],
        )
        return Work(
            kind=name,
            run=RUN,
            config=stage.model_dump(mode="json"),
            decides=decided,
            inputs={source: source for source in self._needs[name]},
            pinned=self._pinned(name),
            data_fingerprint=stage.data_fingerprint,
            code_fingerprint=self._code[name, commit],
            code=code,
            compile_class=name,
            seconds=step.seconds,
            seconds_said="seconds" in step.model_fields_set,
            resources=step.resources.record(),
            what=name,
        )

    def _code_of(self, step: StepSpec, commit: str = "") -> Code:
        return Code(folder=str(self.home), files=step.code or (), commit=commit)

    def _revised(self) -> Callable[[str], str] | None:
        """What tells the commit of a revision, and that it has the files that commands name."""
        return None if self._has_code else self._commit_of

    def _commit_of(self, revision: str) -> str:
        commit = standing.commit_of(self.home, revision)
        for name, step in self.steps.items():
            named = [word for word in step.words if (self._folder(step) / word).is_file()]
            if lacking := standing.lacking(self.home, commit, self._folder(step), named):
                raise UserError(f"{revision} has no {lacking[0]}, which {self._called(name)} names")
        return commit

    def _folder(self, step: StepSpec) -> Path:
        return Path(os.path.normpath(self.home / step.working_folder))

    def _read_paths(self, step: StepSpec, config: Mapping[str, Any]) -> Iterator[str]:
        """Paths of the values that a step is given."""
        whole = {Placeholder(CONFIG), Placeholder(OVERRIDES)} & set(step.braces)
        keys = [one.of for one in step.braces if one.name == CONFIG and one.of]
        for path, _ in placeholders.leaves(config):
            if path == REVISION and not self._has_code:
                continue
            given = whole and (step.reads is None or any(_is_at(path, r) for r in step.reads))
            if given or any(_is_at(path, key) for key in keys):
                yield path

    def _seeded(self, name: str) -> bool:
        """Whether the seed reaches a step, by itself or by what it reads."""
        step = self.steps[name]
        own = bool(step.seed_key) or any(one.name == SEED for one in step.braces)
        return own or any(self._seeded(source) for source in self._needs[name])

    def _pinned(self, name: str) -> bool:
        return not self._seeded(name) and not self.steps[name].metrics

    # -- what can be wrong -----------------------------------------------------------------------

    def _at(self, name: str, *keys: str | int) -> KeyPath:
        """Where a step's keys stand below `workload`."""
        return ("steps", name, *keys) if self._several else keys

    def _called(self, name: str) -> str:
        return f"step {name}" if self._several else "the command"

    def _in_order(self, steps: Mapping[str, StepSpec]) -> dict[str, StepSpec]:
        """The steps, inputs first."""
        self._needs: dict[str, tuple[str, ...]] = {}
        for name, step in steps.items():
            if not step.command:
                self._fail(self._at(name), "it has no command")
            used = [one.of for one in step.braces if one.name == INPUT]
            for source, key in [(one, "needs") for one in step.needs] + [
                (one, "command") for one in used
            ]:
                if source not in steps:
                    self._fail(
                        self._at(name, key), f"no step {shown(source)}{nearest(source, steps)}"
                    )
            self._needs[name] = tuple(dict.fromkeys([*step.needs, *used]))
        ordered: dict[str, StepSpec] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                circle = " → ".join([*above[above.index(name) :], name])
                self._fail(self._at(name), f"steps need one another in a circle: {circle}")
            for source in self._needs[name]:
                visit(source, (*above, name))
            ordered.setdefault(name, steps[name])

        for name in steps:
            visit(name, ())
        return ordered

    def _check_program(self, name: str, step: StepSpec) -> None:
        folder = self._folder(step)
        if not folder.is_dir():
            self._fail(self._at(name, "working_folder"), f"no such folder {folder}")
        program, *rest = step.words
        at = self._at(name, "command")
        if "{" in program:
            return
        if "/" in program:
            found = shutil.which(str(folder / program))
        else:
            found = shutil.which(program, path=step.environment.get("PATH"))
        if found is None:
            there = (folder / program).is_file()
            if there and "/" in program:
                self._fail(at, f"{program} is not executable: chmod +x {program}")
            said = f"; for the file in {folder} write ./{program}" if there else ""
            self._fail(at, f"no program {shown(program)} is on the PATH{said}{_like(program)}")
        if not _INTERPRETERS.fullmatch(Path(program).name):
            return
        script = next((word for word in rest if word in _MODULE_OPTIONS or word[0:1] != "-"), "")
        if script and script not in _MODULE_OPTIONS and "{" not in script:
            place = folder / script
            if not place.is_file():
                there = (
                    [entry.name for entry in place.parent.iterdir()]
                    if place.parent.is_dir()
                    else []
                )
                self._fail(at, f"no script {shown(script)} in {folder}{nearest(place.name, there)}")

    def _check_files(self, name: str, step: StepSpec) -> None:
        """That code and data are there, and that the command's own files are among the code."""
        try:
            code = {path.resolve() for path in files.code_files(self.home, step.code or ())}
        except UserError as error:
            self._fail(self._at(name, "code"), error.message)
        for index, path in enumerate(step.data):
            try:
                files.data_files(self.home, path)
            except UserError as error:
                self._fail(self._at(name, "data", index), error.message)
        data = [(self.home / path).resolve() for path in step.data]
        for word in step.words[1:] if "/" not in step.words[0] else step.words:
            place = (self._folder(step) / word).resolve()
            if word in ("", ".") or "{" in word or not place.is_file():
                continue
            if place not in code and not any(place.is_relative_to(one) for one in data):
                known = "code does not name it" if step.code else "git does not track it"
                self._fail(
                    self._at(name, "command"),
                    f"{word} decides the result, and {known}, so its changes would go unnoticed",
                )

    def _opened(self, path: Path, base: Mapping[str, Any]) -> None:
        """A base was read: whether the steps read what it has."""
        self._has_code = REVISION in base
        self._config_name = "config.json" if path.suffix == ".json" else "config.yaml"
        known = [leaf for leaf, _ in placeholders.leaves(base)]
        groups = {leaf.rpartition(".")[0] for leaf in known}
        for name, step in self.steps.items():
            keys = [one.of for one in step.braces if one.name == CONFIG and one.of]
            for key in keys:
                if not any(_is_at(leaf, key) for leaf in known):
                    self._fail(
                        self._at(name, "command"),
                        f"{{config:{key}}}: the base has no {shown(key)}{nearest(key, known)}",
                    )
            for index, read in enumerate(step.reads or ()):
                if not any(_is_at(leaf, read) for leaf in known):
                    self._fail(
                        self._at(name, "reads", index),
                        f"the base has no {shown(read)}{nearest(read, [*known, *groups])}",
                    )
            whole = {Placeholder(CONFIG), Placeholder(OVERRIDES)} & set(step.braces)
            if step.reads and not whole:
                self._fail(
                    self._at(name, "reads"),
                    "its command takes neither {config} nor {overrides}, so it reads nothing but "
                    "{config:KEY}; leave reads out",
                )
            if step.seed_key and step.seed_key not in self._read_paths(step, base):
                self._fail(
                    self._at(name, "seed_key"),
                    f"{shown(step.seed_key)} is no key that it reads"
                    f"{nearest(step.seed_key, self._read_paths(step, base))}",
                )


def _affecting(stage: CommandStage, step: StepSpec) -> dict[str, Any]:
    """What of a step decides its result, beside code, data, seed and inputs.

    Not its metrics: all numbers of the results are kept, so that one more costs no run. But which
    value is the score is decided when they are read.
    """
    program, *rest = stage.command
    config = stage.config
    if stage.seed_key:
        config = subset(config, {p for p, _ in placeholders.leaves(config) if p != stage.seed_key})
    said = {
        "command": [Path(program).name, *rest],
        "config": config,
        "environment": stage.environment,
        "results": stage.results,
        "step_key": stage.step_key,
        "seed_key": stage.seed_key,
        "working_folder": os.path.normpath(step.working_folder),
        "scores": {
            name: one.model_dump()
            for name, one in stage.metrics.items()
            if one != Measured(key=name)
        },
    }
    return {"reading": READING, **{key: value for key, value in said.items() if value}}


def subset(config: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """The values of a config at some of its paths, in its own order."""
    found: dict[str, Any] = {}
    for path, value in placeholders.leaves(config):
        if path in paths:
            *parents, last = path.split(".")
            place = found
            for key in parents:
                place = place.setdefault(key, {})
            place[last] = value
    return found


def _is_at(path: str, pattern: str) -> bool:
    """Whether a path is at or below what a pattern of `reads` names."""
    parts = path.split(".")
    above = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return any(one == pattern or fnmatch.fnmatchcase(one, pattern) for one in above)


def _key(name: str, metric: MetricSpec) -> str:
    """What the results call a metric."""
    return dotted(metric.key or name)


def _like(program: str) -> str:
    """The end of a message: a program of the same family that is there."""
    near = [f"{program}3", program.rstrip("0123456789.")]
    there = [one for one in near if one and one != program and shutil.which(one)]
    return f"; did you mean {there[0]!r}?" if there else ""
