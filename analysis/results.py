"""A study's view of the store: its snapshot joined with the one long result table.

Everything that is printed or drawn about a study comes from the `StudyResults` made here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import Any, Literal

import pandas

from ablations.adaptive_seeds import AdaptiveSeeds
from ablations.claims import first_shots, keys_of
from ablations.contrasts import ScoreKey, Scores
from ablations.deciding import claim_stages, claims_of, conditions, places, vocabulary
from ablations.errors import UserError
from ablations.own_workload import metric_parts
from ablations.plan import Plan, make_plan
from ablations.replicated import Replicated
from ablations.stages import Stage, Trial
from ablations.study import Study, is_file, study_name
from ablations.verdicts import Verdict
from ablations.workload import INTACT, Asked
from analysis.forecast_words import last_whole
from analysis.registry import (
    History,
    Other,
    Registered,
    Registry,
    Standing,
    tasks_of,
    turned_back,
)
from analysis.score_table import COLUMNS, ScoreTable
from analysis.words import decimals, mean_sd, metric_name, minute
from sweeps import leases
from sweeps.forecasts import Forecast, forecasts_of
from sweeps.index import Finished
from sweeps.records import Cancelled
from sweeps.replicating import replicated
from sweeps.store import Registration, Store

# Parts of the execution record within which results are promised to be equal to the bit.
EXECUTION_CLASS = (
    "device_kind",
    "device_count",
    "processes",
    "mesh",
    "form",
    "threads",
    "pool_threads",
    "xla_flags",
    "processor",
    "machine",
    "python",
    "libraries",
)
CELLS = [*ScoreKey._fields, "seed"]  # of which a trial has one number
State = Literal["done", "running", "waiting", "failed"]


@dataclass(frozen=True)
class Origin:
    """What only those know who know what is trained.

    read      reads a study's file, with the workload that it means
    picture   the image of a number that a training stage read, as PNG: stage, root of the prepared
              data, number. `MissingFileError` where that data is not on this machine
    """

    read: Callable[[Path], Study]
    picture: Callable[[Stage, Path, int], bytes]


@dataclass(frozen=True)
class StudyResults:
    """What the store holds of one study, as it was registered last."""

    plan: Plan
    registration: Registration
    store: Store
    data_root: Path  # prepared data, for the images of examples
    file: Path | None  # the study's file, to say how it differs from the snapshot
    origin: Origin | None  # reads it
    found: Finished  # what the store held of the plan's stages when it was looked at
    damages: tuple[str, ...] = ()  # of the study's own records, which it is shown without
    # Where seeds are added: the decisions so far. `plan` has the trials that were decided on alone,
    # `whole` all that was registered.
    replicated: Replicated | None = None

    def __repr__(self) -> str:
        metric = ".".join(self.plan.primary_metric)
        there = sum(self.done.issuperset(trial.stages.values()) for trial in self.plan.trials)
        return (
            f"<StudyResults {self.plan.study}: {len(self.plan.arms)} arms × "
            f"{len(self.plan.seeds)} seeds, {there} of {len(self.plan.trials)} trials "
            f"there, {len(self.plan.claims)} claims, primary metric {metric}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: how complete it is, and the primary metric of each arm."""
        scores = {arm.label: self.score(arm.name, *self.primary) for arm in self.plan.arms}
        spreads = {
            label: statistics.stdev(values.values()) if len(values) > 1 else math.nan
            for label, values in scores.items()
        }
        means = {k: math.fsum(v.values()) / len(v) for k, v in scores.items() if v}
        places = decimals(spreads.values(), means.values())
        counts = Counter(arm for arm, _ in self.diverged)
        lost = {
            arm.label: f", {counts[arm.name]} diverged" if counts[arm.name] else ""
            for arm in self.plan.arms
        }
        rows = "".join(
            f"<tr><td>{escape(label)}</td>"
            f"<td>{mean_sd(means[label], spreads[label], places)}</td>"
            f"<td>{len(values)}{lost[label]}</td></tr>"
            for label, values in scores.items()
            if values
        )
        head = f"<b>{escape(self.plan.study)}</b>: {escape(self.plan.question)}"
        metric = escape(metric_name(*self.primary))
        return (
            f"<p>{head}<br>{self.trials_there} of {len(self.plan.trials)} planned trials are there"
            f"</p><table><tr><th>arm</th><th>{metric}, mean ± SD</th><th>seeds</th></tr>{rows}"
            "</table>"
        )

    @property
    def whole(self) -> Plan:
        """The plan as it was registered."""
        return self.plan if self.replicated is None else self.replicated.plan

    published: str = ""  # whether a registration that was kept outside the store is this one

    @property
    def done(self) -> frozenset[str]:
        """Stages of the plan that have a result."""
        return self.found.sound

    @property
    def damaged(self) -> Mapping[str, str]:
        """Stages that are left out → what is wrong with their results."""
        return self.found.damaged

    @cached_property
    def links(self) -> pandas.DataFrame:
        """One line per (trial, stage), in the plan's order: arm, seed, stage, is_evaluation.

        A stage that trials share is in the line of each.
        """
        asked: dict[tuple[str, ...], list[bool]] = {}  # arm, roles of a trial → is_evaluation
        lines = []
        for trial in self.plan.trials:
            key = (trial.arm, *trial.stages)
            if key not in asked:
                trained = self.plan.trainings(trial)
                asked[key] = [role not in trained for role in trial.stages]
            stages = zip(trial.stages.values(), asked[key], strict=True)
            lines += [(trial.arm, trial.seed, one, is_asked) for one, is_asked in stages]
        return pandas.DataFrame(lines, columns=["arm", "seed", "stage", "is_evaluation"])

    def _with_arms(self, rows: pandas.DataFrame) -> pandas.DataFrame:
        arms = self.links[["arm", "stage"]].drop_duplicates()
        return arms.merge(rows, on="stage")

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """`arm` and the columns of `sweeps.finished.COLUMNS`: all that was measured, by stage.

        The rows of training by step are many, and read for this alone; `evaluations` and `curves`
        are parts of it.
        """
        together = pandas.concat([self.found.curves(), self.found.scores], ignore_index=True)
        return self._with_arms(together)

    @cached_property
    def changed(self) -> str | None:
        """How the study file differs from the snapshot, if it does; planned when asked for."""
        if self.file is None or self.origin is None:
            return None
        return difference(self.whole, self.file, self.origin)

    def looked(self, by: str) -> None:
        """Put on record that the results are shown."""
        self.store.looked(self.whole, self.done, by)

    # -- completeness ------------------------------------------------------------------------

    @property
    def damage_lines(self) -> list[str]:
        """What of the study's records is damaged, and what is left out because it is."""
        left_out = [f"left out: {line}" for line in self.damaged.values()]
        return [*(f"damaged: {line}" for line in self.damages), *left_out]

    @cached_property
    def problems(self) -> dict[tuple[str, int], str]:
        """(arm, seed) of every trial that is not there exactly once → what is wrong with it."""
        odd = set(self.plan.stages) - self.found.whole
        stages = self.found.stages
        if self.plan.is_own:  # a metric may have been declared since
            odd |= {
                trial.stages[role]
                for trial in self.plan.trials
                for role, *metric in self._asked_of[trial.arm]
                if (trial.stages[role], *metric) not in self._measured
            }
        scored = set(stages.index[stages["has_rows"]]) if odd else set()
        repeated = set(stages.index[stages["is_repeated"]]) if odd else set()
        found = dict(self._ambiguous)
        for trial in self.plan.trials if odd else ():
            if odd.isdisjoint(trial.stages.values()):
                continue
            wrong = [text for text in self._stage_problems(trial, scored, repeated) if text]
            place = trial.arm, trial.seed
            if wrong and place in self.cancelled:
                wrong.insert(0, told_cancelled(self.cancelled[place]))
            if wrong:
                several = [found[place]] if place in found else []
                found[place] = "; ".join([*wrong, *several])
        return found

    @cached_property
    def cancelled(self) -> dict[tuple[str, int], Cancelled]:
        """(arm, seed) → that a run was told to leave it out, whether it is there by now or not."""
        return self.store.cancelled(self.whole)

    @cached_property
    def _ambiguous(self) -> dict[tuple[str, int], str]:
        """(arm, seed) → what it has several numbers of, those of two splits or steps say."""
        rows = self.evaluations
        names: dict[tuple[str, int], dict[str, None]] = {}
        for row in rows[rows.duplicated(CELLS)].to_dict("records"):
            form = row["task"], row["metric"], row["shots"], row["condition"]
            names.setdefault((row["arm"], row["seed"]), {})[metric_name(*form)] = None
        return {place: f"several numbers of {', '.join(mine)}" for place, mine in names.items()}

    def _stage_problems(
        self, trial: Trial, scored: set[str], repeated: set[str]
    ) -> list[str | None]:
        names = {role: role for role in trial.stages}
        if not self.plan.is_own:  # else the roles are the user's own words
            names |= {role: f"{role} before" for role in self.plan.trainings(trial)}
            names[self.plan.arm(trial.arm).main] = "training"
        stages = {stage: names[role] for role, stage in trial.stages.items()}
        waiting = [s for s in stages if s not in self.done and s not in self.damaged]
        failures = {stage: self._last_failure(stage) for stage in waiting}
        texts: list[str | None] = [
            f"{stages[stage]} failed ({failure})" for stage, failure in failures.items() if failure
        ]
        if waiting and not texts:
            all_of_it = len(waiting) == len(stages)
            names = ", ".join(stages[stage] for stage in waiting)
            texts.append("not there yet" if all_of_it else f"{names} not there yet")
        for stage, name in stages.items():
            if stage in self.damaged:
                texts.append(f"{name} is damaged")
            elif stage in repeated:
                texts.append(f"{name} is there more than once")
            elif stage in self.done and stage not in scored and not self.plan.is_own:
                texts.append(f"{name} has no result rows")
        if self.plan.is_own:
            texts += [
                f"{role} measured no {task}.{metric}"
                for role, task, metric in self._asked_of[trial.arm]
                if trial.stages[role] in self.done
                and (trial.stages[role], task, metric) not in self._measured
            ]
        return texts

    @cached_property
    def _asked_of(self) -> dict[str, list[tuple[str, str, str]]]:
        """Arm → (role, task, metric) of all that its trials should have measured."""
        return {
            arm.name: [
                (one.role, one.task, metric.name)
                for one in arm.answers
                for metric in self.plan.tasks[one.task].metrics
            ]
            for arm in self.plan.arms
        }

    @cached_property
    def _measured(self) -> set[tuple[str, str, str]]:
        """(stage, task, metric) of every score."""
        columns = (self.found.scores[name] for name in ("stage", "task", "metric"))
        return set(zip(*columns, strict=True))

    def _last_failure(self, stage: str) -> str | None:
        failures = self.store.failures(stage) if stage in self.found.begun else []
        return " ".join(str(failures[-1].get("error", "unknown")).split()) if failures else None

    @cached_property
    def states(self) -> dict[tuple[str, int], State]:
        """(arm, seed) → how far the trial is, when it was first asked for."""
        return self.states_now()

    def states_now(self) -> dict[tuple[str, int], State]:
        """The same at this moment: what is missing may be begun, or fail."""
        return {(trial.arm, trial.seed): self._state(trial) for trial in self.plan.trials}

    def _state(self, trial: Trial) -> State:
        if (trial.arm, trial.seed) not in self.problems:
            return "done"
        missing = set(trial.stages.values()) - self.done
        objects, folder = self.store.objects, self.store.lease_folder
        if any(leases.holder(objects, folder(stage)) for stage in missing & self.found.begun):
            return "running"
        lost = not missing or any(
            stage in self.damaged or self._last_failure(stage) for stage in missing
        )
        return "failed" if lost else "waiting"

    @property
    def trials_there(self) -> int:
        """Planned trials that are there exactly once."""
        return len(self.plan.trials) - len(self.problems)

    @property
    def completeness(self) -> str:
        """One line: every planned trial is there exactly once, or which are not."""
        planned = len(self.plan.trials)
        shape = f"{len(self.plan.arms)} arms × {len(self.plan.seeds)} seeds"
        if self.plan.excluded:
            shape += f", {len(self.plan.excluded)} excluded"
        if self.replicated is not None:
            rule, state = self.replicated.rule, "" if self.replicated.ended else " so far"
            shape = (
                f"{len(self.plan.arms)} arms, {rule.initial} to at most {rule.most} seeds, of "
                f"{len(self.whole.trials)} trials at most; decided by the registered rule{state}"
            )
        if not self.problems:
            return f"All {planned} planned trials ({shape}) are there exactly once."
        alike: dict[str, list[str]] = {}
        for (arm, seed), text in self.problems.items():
            alike.setdefault(text, []).append(f"{arm} seed {seed}")
        named = "; ".join(f"{', '.join(trials)}: {text}" for text, trials in alike.items())
        return f"{self.trials_there} of {planned} planned trials ({shape}) are there; not: {named}."

    @property
    def seeds_in(self) -> tuple[int, ...]:
        """Registered seeds for which every arm's trial is there."""
        lacking = {seed for _, seed in self.problems}
        asked = {trial.seed for trial in self.plan.trials}
        return tuple(seed for seed in self.plan.seeds if seed in asked - lacking)

    @property
    def interim(self) -> bool:
        """Whether registered seeds are still missing, so that nothing is final."""
        if self.replicated is not None:
            return not self.replicated.ended
        return bool(self.problems)

    # -- scores ------------------------------------------------------------------------------

    @cached_property
    def diverged_stages(self) -> frozenset[str]:
        """Finished stages that diverged, themselves or in what they took input from."""
        stages = self.found.stages
        return frozenset(stages.index[stages["diverged"]])

    @cached_property
    def diverged(self) -> tuple[tuple[str, int], ...]:
        """(arm, seed) of the trials of which a stage diverged, whichever it was."""
        return tuple(
            (trial.arm, trial.seed)
            for trial in self.plan.trials
            if not self.diverged_stages.isdisjoint(trial.stages.values())
        )

    @cached_property
    def evaluations(self) -> pandas.DataFrame:
        """The rows of evaluation stages: one number per (arm, seed, task, metric, …)."""
        rows = self._with_arms(self.found.scores)
        if self.plan.is_own:
            named = zip(rows["task"], rows["metric"], strict=True)
            rows = rows.loc[[self.plan.is_declared(*one) for one in named]]
        return rows

    @cached_property
    def table(self) -> ScoreTable:
        """The study's design and its numbers, apart from where they were stored."""
        plan, rows = self.plan, self.evaluations
        several = rows.duplicated(CELLS, keep=False)
        if several.any():  # nobody has said which of them is meant
            rows = rows.assign(value=rows["value"].mask(several)).drop_duplicates(CELLS)
        return ScoreTable(
            design=vocabulary(plan).design,
            seeds=plan.seeds,
            primary=self.primary,
            tasks=plan.tasks,
            numbers=rows[list(COLUMNS)],
            null_arms=plan.null_arms,
            averaged=plan.average,
            diverged=places(plan, self.diverged_stages),
            missing=frozenset(self.problems),
            excluded=plan.left_out,
        )

    def scores(self) -> Scores:
        """(arm, task, metric, shots, condition) → seed → score; what verdicts are made from.

        A diverged trial has the metric's worst value, and NaN where there is none.
        """
        return self.table.scores

    def score(
        self, arm: str, task: str, metric: str, shots: int = 0, condition: str = INTACT
    ) -> dict[int, float]:
        """Seed → score of one arm, in the order of the registered seeds; empty if there is none."""
        return self.table.score(arm, task, metric, shots, condition)

    @property
    def primary(self) -> tuple[str, str, int]:
        """Task, metric and shots of the primary metric: those that claims mean by default."""
        task, metric = self.plan.primary_metric
        return task, metric, first_shots(a.asked for a in self.plan.arms[0].answers).get(task, 0)

    @cached_property
    def _registrations(self) -> tuple[list[tuple[Plan, Registration]], list[str]]:
        return self.store.registrations(self.plan.study, tasks_of(self.plan))

    @cached_property
    def _removed_registrations(self) -> list[str]:
        """The study's name, or another, of each registration that was here and is gone."""
        known = [self.registration, *(registration for _, registration in self._registrations[0])]
        return self.store.removed_registrations(known)

    @property
    def removed_registrations(self) -> list[str]:
        """A line where registrations of other studies are gone that were here before."""
        gone = Counter(name for name in self._removed_registrations if name != self.plan.study)
        named = ", ".join(name + (f" ({n})" if n > 1 else "") for name, n in gone.items())
        told = "registrations that were here are gone; whether they counted for these claims is not"
        return [f"{told} known: {named}"] if gone else []

    @cached_property
    def gaps(self) -> list[str]:
        """What the store cannot tell any more of how a claim of the study came about, a line each.

        Registrations of its name that are gone, any that cannot be read, results that somebody saw
        and that are not those of now, a clock that was turned back.
        """
        lines = [
            f"{line}; whether it counts for these claims is not known"
            for line in self._registrations[1]
        ]
        if gone := self._removed_registrations.count(self.plan.study):
            some = "an earlier registration" if gone == 1 else f"{gone} earlier registrations"
            lines.append(f"{some} of its name {'is' if gone == 1 else 'are'} gone")
        related = self.registry.related(self.whole)
        for one in related:
            replaced = self.registry.replaced(one)
            if replaced and one.plan.study == self.plan.study:
                lines.append(replaced.told)
        lines += [
            f"the clock was turned back: {one.plan.study} is on record as earlier, with the time "
            f"{minute(one.at)} UTC"
            for one in related
            if turned_back(one, self._now)
        ]
        return list(dict.fromkeys(lines))

    @cached_property
    def _now(self) -> Registered:
        return Registered(self.whole, self.registration)

    @cached_property
    def registry(self) -> Registry:
        """What the store knows of the study's name, or of its primary metric."""
        others = [
            Registered(plan, registration)
            for plan, registration in self._registrations[0]
            if registration != self.registration
        ]
        stages: Collection[str] = self.whole.stages  # which were looked at already
        if others:
            stages = {stage: None for one in (self._now, *others) for stage in one.plan.stages}
        times = self.store.finished_times(stages)
        return Registry(
            [self._now, *others],
            times.get,
            self.store.last_look,
            lambda registered: self._as(registered).scores(),
            self._come_to,
        )

    def _come_to(self, registered: Registered) -> Plan:
        """What a registration has come to: without the seeds that its rule did not ask for."""
        if registered.plan.replication is None:
            return registered.plan
        there = self._as(registered)
        assert there.replicated is not None
        return there.plan if there.replicated.ended else registered.plan

    @cached_property
    def histories(self) -> dict[str, History]:
        """Claim → which registration counts for it, its standing, and what else was tried."""
        return self.registry.histories(self._now)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each claim, in the order of the study file.

        Each in the family of the registration that counts for it: what was claimed together then,
        also where the study claims less, or more, by now.
        """
        decided: dict[tuple[str, str, tuple[str, ...]], dict[str, Verdict]] = {}
        found = []
        for name, history in self.histories.items():
            registration = history.counts.registration
            key = (registration.hash, registration.registered_at, history.family)
            if key not in decided:
                there = self._as(history.counts)
                own = there.judged(history.family)
                decided[key] = {verdict.name: verdict for verdict in own}
            found.append(replace(decided[key][history.name], name=name))
        return found

    def judged(self, family: Collection[str] | None = None) -> list[Verdict]:
        """The verdicts of some claims of this registration, corrected for those alone."""
        claims = claims_of(self.plan, family)
        if self.replicated is not None:
            return self.replicated.verdicts(claims)
        return self.table.verdicts(claims, self.plan.alpha)

    @cached_property
    def _others(self) -> dict[int, StudyResults]:
        return {}

    def _as(self, registered: Registered) -> StudyResults:
        """What the store holds of a registration, read once."""
        if registered.registration == self.registration:
            return self
        if id(registered) not in self._others:
            there = read_results(registered.plan, registered.registration, self.store)
            self._others[id(registered)] = there
        return self._others[id(registered)]

    @cached_property
    def _tried(self) -> dict[int, str]:
        return {}

    def tried(self, other: Other) -> str:
        """Another registration, and what it came to by itself; worked out once for all claims."""
        key = id(other.registered)
        if key not in self._tried:
            there = self._as(other.registered)
            verdicts = [f"{one.name}: {one.verdict}" for one in there.judged()]
            self._tried[key] = f"{other.told}: {'; '.join(verdicts) or 'no claims'}"
        return self._tried[key]

    @cached_property
    def claim_stages(self) -> dict[str, set[str]]:
        """Claim → the stages that its scores come from."""
        return claim_stages(self.plan)

    @cached_property
    def claim_keys(self) -> dict[str, list[ScoreKey]]:
        """Claim → the cells of the score table that it reads."""
        return {name: keys_of([one]) for name, one in conditions(self.plan).items()}

    def behind(self, claim: str) -> set[str]:
        """The stages that a claim's scores come from, and all that those took input from."""
        found: set[str] = set()
        waiting = list(self.claim_stages[claim])
        while waiting:
            stage = waiting.pop()
            if stage not in found:
                found.add(stage)
                waiting += self.plan.stages[stage].inputs.values()
        return found

    def is_waiting(self, claim: str) -> bool:
        """Whether stages that a claim reads are missing, so that it has no verdict yet."""
        return not self.claim_stages[claim] <= self.done

    def is_interim(self, verdict: Verdict) -> bool:
        """Whether what is missing could still change a verdict.

        Holm's correction can only help a claim when others come in: a verdict that is reached
        stays, an undecided one may become one.
        """
        if self.replicated is not None:
            return verdict.is_open
        others = verdict.verdict == "undecided" and any(map(self.is_waiting, self.plan.claims))
        return others or self.is_waiting(verdict.name)

    def standing(self, claim: str) -> Standing:
        """How far a claim was fixed before its results were known (`analysis.registry`)."""
        return self.histories[claim].standing

    def mixed_executions(self, stages: Collection[str] | None = None) -> list[str]:
        """Warnings where stages that are compared ran on unlike devices or libraries.

        All of the study, or some, such as those that a claim reads.
        """
        classes: dict[tuple[str, str], set[str]] = {}  # of stages of one kind: others may differ
        ran = self._ran_of(stages)[["kind", "shared"]].drop_duplicates()
        for kind, shared in ran.itertuples(index=False):
            execution = json.loads(shared)
            for fact in EXECUTION_CLASS:
                if fact in execution:
                    own = classes.setdefault((kind, fact), set())
                    own.add(json.dumps(execution[fact], sort_keys=True))
        unlike = [fact for (_, fact), values in classes.items() if len(values) > 1]
        mixed = [fact.replace("_", " ") for fact in dict.fromkeys(unlike)]
        if not mixed:
            return []
        return [f"stages ran with unlike {', '.join(mixed)}: equal to a tolerance, not to the bit"]

    def tried_again(self) -> list[str]:
        """A warning where stages failed before they gave a result.

        Our own runners come to the same result again; whoever's own does not could wait for luck.
        """
        before = {
            text: json.loads(text).get("failed_before") for text in self._ran["shared"].unique()
        }
        failed = [n for text in self._ran["shared"] if (n := before[text])]
        if not failed:
            return []
        attempts = "1 attempt" if sum(failed) == 1 else f"{sum(failed)} attempts"
        stages = "1 stage" if len(failed) == 1 else f"{len(failed)} stages"
        return [f"{stages} gave a result after {attempts} that failed: mm1 audit says why"]

    def unlike_images(self, stages: Collection[str] | None = None) -> list[str]:
        """Warnings where evaluations that ask the same saw other bytes under the same names.

        All of the study's, or some.
        """
        ran = self._ran_of(stages)
        images = {text: json.loads(text).get("images") for text in ran["shared"].unique()}
        seen: dict[str, set[str]] = {}
        if len(set(images.values()) - {None}) > 1:
            for stage, shared in zip(ran["stage"], ran["shared"], strict=True):
                if images[shared] is not None:
                    asked = json.dumps(self.plan.stages[stage].config, sort_keys=True)
                    seen.setdefault(asked, set()).add(images[shared])
        odd = [json.loads(asked) for asked, found in seen.items() if len(found) > 1]
        return [
            f"evaluations of {one['task']} ({one['shots']}-shot, {one['condition']}) saw different "
            "images under the same names: images.parquet of their stages says which"
            for one in odd
        ]

    # -- curves and cost ---------------------------------------------------------------------

    @cached_property
    def curve(self) -> str:
        """What the curve is called that is shown of every trial.

        Of our model the training loss; of a training of the user's own the primary metric, by the
        name that its results have for it.
        """
        if not self.plan.is_own:
            return "loss"
        asked = self.plan.primary_metric
        stage = self.curve_stage(self.plan.trials[0])
        declared = self.plan.stages[stage].config["metrics"]
        for written in declared:
            task, name = metric_parts(written)
            if (task or self.plan.stages[stage].kind, name) == asked:
                return declared[written]["key"] if isinstance(declared, dict) else written
        return ".".join(asked)

    def curve_stage(self, trial: Trial) -> str:
        """The stage that `curve` is of.

        Of our model the main stage: those of the stages before it have losses of another kind;
        of a training of the user's own the step that measures the primary metric.
        """
        if not self.plan.is_own:
            return self.plan.main(trial)
        task, _ = self.plan.primary_metric
        role = next(one.role for one in self.plan.arm(trial.arm).answers if one.task == task)
        return trial.stages[role]

    def curves(self, metric: str = "") -> pandas.DataFrame:
        """Columns arm, seed, step, value of one metric of `curve_stage`, by step; of `curve`."""
        trained = set(map(self.curve_stage, self.plan.trials))
        rows = self.found.curves(metric or self.curve)
        picked = self._with_arms(rows[rows["stage"].isin(trained)])
        return picked[["arm", "seed", "step", "value"]].sort_values(["arm", "seed", "step"])

    @cached_property
    def executions(self) -> dict[str, dict[str, Any]]:
        """Stage → how it ran: seconds, device, versions, for the stages that are done."""
        found = self.found.executions
        return {stage: found[stage] for stage in self.plan.stages if stage in found}

    @cached_property
    def _ran(self) -> pandas.DataFrame:
        """Of the stages that are done, in the plan's order: `stage`, `kind`, `shared`."""
        done = [stage for stage in self.plan.stages if stage in self.done]
        kinds = [self.plan.stages[stage].kind for stage in done]
        shared = self.found.stages["shared"].reindex(done)
        return pandas.DataFrame({"stage": done, "kind": kinds, "shared": shared.to_numpy()})

    def _ran_of(self, stages: Collection[str] | None) -> pandas.DataFrame:
        return self._ran if stages is None else self._ran[self._ran["stage"].isin(list(stages))]

    @cached_property
    def forecast(self) -> Forecast | None:
        """What the last whole run was estimated to take and took; None where there was none."""
        return last_whole(forecasts_of(self.store, self.plan))

    @cached_property
    def costs(self) -> pandas.DataFrame:
        """One line per (trial, stage): arm, seed, stage, kind, planned and measured seconds, FLOPs.

        `once_seconds` of the measured ones went into importing and compiling, which only the
        first stage of its class in a worker does; `is_evaluation` tells scoring from training. A
        stage that two arms share is listed with both; sum over distinct `stage` for the total.
        """
        planned = pandas.DataFrame(
            [(one.id, one.kind, one.seconds, one.flops) for one in self.plan.stages.values()],
            columns=["stage", "kind", "planned_seconds", "flops"],
        ).set_index("stage")
        measured = self.found.stages[["seconds", "once_seconds"]]
        joined = self.links.join(planned, on="stage").join(measured, on="stage")
        names = ["arm", "seed", "stage", "kind", "planned_seconds", "seconds", "once_seconds"]
        return joined[[*names, "is_evaluation", "flops"]]

    # -- examples ----------------------------------------------------------------------------

    def trial(self, arm: str, seed: int) -> Trial:
        """One planned trial."""
        return next(t for t in self.plan.trials if (t.arm, t.seed) == (arm, seed))

    def prepared_picture(self, number: int) -> bytes | None:
        """A picture of the data that the study was trained on, as PNG; None where no `origin` is.

        Raises `MissingFileError` where prepared data is not here; its message is the folder.
        """
        if self.origin is None:
            return None
        trained = self.plan.stages[self.plan.main(self.plan.trials[0])]
        return self.origin.picture(trained, self.data_root, number)

    def examples(
        self, arm: str, seed: int, task: str, shots: int = 0, condition: str = INTACT
    ) -> pandas.DataFrame | None:
        """Stored examples of one evaluation; None where it is not there or keeps none."""
        if (arm, seed) in self.plan.left_out:
            return None
        trial = next((t for t in self.plan.trials if (t.arm, t.seed) == (arm, seed)), None)
        if trial is None:  # excluded, or a seed that was never asked for
            return None
        stage = self.plan.answers(trial).get(Asked(task, shots, condition))
        return self.store.examples(stage) if stage in self.done else None


def told_cancelled(record: Cancelled) -> str:
    """That a trial was cancelled, when and by whom."""
    return f"cancelled on {minute(record.at)} UTC by {record.by}"


def load_results(
    study: str | Path,
    store: str | Path | Store,
    *,
    origin: Origin | None = None,
    data_root: Path | None = None,
) -> StudyResults:
    """What `store` holds of a study: its name, or the path of its file.

    Raises `UserError` where no such study has run. A study file that says something else than
    what was run is no error, but noted in `changed`, where `origin` is given.
    """
    opened = store if isinstance(store, Store) else Store(store)
    from_file = is_file(study)
    plan, registration = opened.snapshot(study_name(study) if from_file else str(study))
    file = Path(study) if from_file else Path(plan.path)
    return read_results(plan, registration, opened, file=file, origin=origin, data_root=data_root)


def load_all(store: Store, origin: Origin | None = None) -> tuple[list[StudyResults], list[str]]:
    """Every study of a store, in order of registration, and a line for each that is damaged."""
    found, lines = store.snapshots()
    return [
        read_results(*snapshot, store, file=Path(snapshot[0].path), origin=origin)
        for snapshot in found.values()
    ], lines


def read_results(
    plan: Plan,
    registration: Registration,
    store: Store,
    *,
    file: Path | None = None,
    origin: Origin | None = None,
    data_root: Path | None = None,
) -> StudyResults:
    """Join a snapshot with what the store holds now."""
    found = store.look(plan.stages)
    made = None if plan.replication is None else replicated(plan, store, found)
    return StudyResults(
        plan=plan if made is None else plan.only(made.trials),
        registration=registration,
        store=store,
        data_root=data_root or store.local / "data",
        file=file,
        origin=origin,
        found=found,
        damages=tuple(store.study_damage(plan.study)),
        replicated=made,
    )


def difference(plan: Plan, file: Path, origin: Origin) -> str | None:
    """How a study file differs from the snapshot of what was run; None if it means the same."""
    try:
        if not file.is_file():
            return None  # run elsewhere, or moved: nothing to compare with
        study = origin.read(file)
        # A seed's stages are the plan's where another seed's are: what else decides is the same.
        short = not study.file.exclude and not isinstance(study.file.seeds, AdaptiveSeeds)
        make = partial(make_plan, study, many=True, fresh_set=plan.fresh_set)
        now = make(first_seed_alone=short)
        if short and now.hash == plan.hash and not now.stages.keys() <= plan.stages.keys():
            now = make()
    except PermissionError:
        return None  # somebody else's
    except UserError as error:
        return f"{file} has changed since this was run and is no longer a valid study: {error}"
    if now.hash != plan.hash:
        return (
            f"{file} has changed since this was run (then {plan.hash[:12]}, now {now.hash[:12]}); "
            "what is shown is the study as it was run"
        )
    fresh = len(now.stages.keys() - plan.stages.keys())
    if fresh:
        return (
            f"code or data have changed since this was run: {fresh} of {len(now.stages)} stages "
            "would run anew"
        )
    return None
