"""Why a stage of a plan is new, where the store has a finished one in its place.

The same arm, seed and role of an earlier registration of the study had another stage; what is told
is the part of its identity that differs. → `ablations.identity`
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablations import identity
from ablations.errors import UserError
from ablations.few import few
from ablations.plan import Plan
from ablations.stages import Stage
from ablations.workload import Work
from sweeps.store import Store

_SHOWN = 4  # names in a line


@dataclass(frozen=True)
class Difference:
    """What of a stage's identity is another than of the one that was in its place.

    code    modules or files: changed, added and removed ones; empty lists where they are not known
    config  fields that decide the result
    inputs  names of inputs that are other stages → why those are new, if that is known
    """

    code: Mapping[str, list[str]] = field(default_factory=dict)
    config: tuple[str, ...] = ()
    data: bool = False
    seed: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = []
        if self.code:
            listed = [
                f"{what} {few(names, _SHOWN)}" for what, names in self.code.items() if names
            ]  # nothing where the store did not keep what the code was
            said.append(f"code: {', '.join(listed)}" if listed else "code")
        if self.config:
            said.append(f"config: {few(self.config, _SHOWN)}")
        if self.data:
            said.append("data")
        if self.seed:
            said.append("seed")
        for name, why in self.inputs.items():
            said.append(f"it reads a new {name}" + (f" ({why})" if why else ""))
        return "; ".join(said)


@dataclass(frozen=True)
class New:
    """Stages of one kind that are new for the same reason."""

    kind: str
    stages: int
    because: Difference

    def __str__(self) -> str:
        kind = self.kind.replace("_", " ")
        return f"{self.stages} {kind} {'stage' if self.stages == 1 else 'stages'}: {self.because}"


def new_stages(store: Store, plan: Plan, finished: Collection[str]) -> list[New]:
    """Reasons, those of inputs first, for what is not finished and was, in another form."""
    if len(finished) == len(plan.stages):
        return []
    before = _before(store, plan)
    works: dict[tuple[str, str, str, str], Difference] = {}  # what seeds share is compared once
    found: dict[str, Difference] = {}  # stage → why it is new
    groups: dict[tuple[str, str], list[Difference]] = {}
    for trial in plan.trials:
        for role, stage_id in trial.stages.items():
            old, new = before.get((trial.arm, trial.seed, role)), plan.stages[stage_id]
            if stage_id in finished or stage_id in found or old is None or old.kind != new.kind:
                continue
            pair = (old.code_fingerprint, new.code_fingerprint, old.work.decides, new.work.decides)
            if pair not in works:
                works[pair] = _difference(store, plan, old.work, new.work)
            difference = replace(
                works[pair], seed=old.seed != new.seed, inputs=_inputs(old, new, found)
            )
            found[stage_id] = difference
            groups.setdefault((new.kind, str(difference)), []).append(difference)
    return [New(kind, len(those), those[0]) for (kind, _), those in groups.items()]


def _before(store: Store, plan: Plan) -> dict[tuple[str, int, str], Stage]:
    """Arm, seed, role → what was finished there, of the last registration that has it."""
    registered, _ = store.registrations(plan.study, ())
    if not registered:
        return {}
    plans = [one for one, _ in sorted(registered, key=lambda each: each[1].registered_at)]
    done = store.done({stage for one in plans for stage in one.stages})
    return {
        (trial.arm, trial.seed, role): earlier.stages[stage_id]
        for earlier in plans
        for trial in earlier.trials
        for role, stage_id in trial.stages.items()
        if stage_id in done
    }


def _difference(store: Store, plan: Plan, old: Work, new: Work) -> Difference:
    """Without what belongs to a seed."""
    return Difference(
        code=_code(store, old, new) if old.code_fingerprint != new.code_fingerprint else {},
        config=_config(plan, old, new) if old.decides != new.decides else (),
        data=old.data_fingerprint != new.data_fingerprint,
    )


def _inputs(old: Stage, new: Stage, known: Mapping[str, Difference]) -> dict[str, str]:
    return {
        name: str(known.get(new.inputs.get(name, ""), ""))
        for name in sorted({*old.inputs, *new.inputs})
        if old.inputs.get(name) != new.inputs.get(name)
    }


def _code(store: Store, old: Work, new: Work) -> dict[str, list[str]]:
    changed: dict[str, list[str]] = {"changed": [], "added": [], "removed": []}
    before = store.code_parts(old.code_fingerprint)
    if before is None:
        return changed
    with contextlib.suppress(UserError):  # of a study by its name, whose code may be gone
        now = identity.parts_of(new.code)
        changed["changed"] = [n or "its function" for n in now if before.get(n, now[n]) != now[n]]
        changed["added"] = [name for name in now if name not in before]
        changed["removed"] = [name for name in before if name not in now]
    return changed


# Of a training of the user's own: where and how it runs, which decides no result.
PLACES = ("home", "folder", "code", "data", "data_fingerprint", "config_name", "examples")
PLACES += ("timeout", "grace", "resumable", "cpu")


def _config(plan: Plan, old: Work, new: Work) -> tuple[str, ...]:
    """Paths of a stage's config that differ, but for those that decide no result."""
    free = [
        tuple(parts[start:])
        for parts in (path.replace(".*", "").split(".") for path in plan.free)
        for start in range(len(parts))  # a stage has a part of the whole config
    ]
    return tuple(
        path
        for path in _differing(old.config, new.config)
        if not (plan.is_own and path.split(".")[0] in PLACES)
        and not any(tuple(path.split("."))[: len(one)] == one for one in free)
    )


def _differing(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield path
        return
    for key in dict.fromkeys([*old, *new]):
        if key not in old or key not in new:
            yield f"{path}.{key}".lstrip(".")
        else:
            yield from _differing(old[key], new[key], f"{path}.{key}".lstrip("."))
