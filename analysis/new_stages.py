"""Why a stage of a plan is new, where the store has a finished one in its place.

The same arm, seed and role of an earlier registration of the study had another stage; what is told
is the part of its identity that differs. → `ablations.identity`
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablations import identity
from ablations.plan import Plan
from ablations.stages import Stage
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
                f"{what} {_listed(names)}" for what, names in self.code.items() if names
            ]  # nothing where the store did not keep what the code was
            said.append(f"code: {', '.join(listed)}" if listed else "code")
        if self.config:
            said.append(f"config: {_listed(self.config)}")
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
    missing = [stage for stage in plan.stages if stage not in finished]
    if not missing:
        return []
    before = _before(store, plan)
    if not before:
        return []
    done = store.done({stage.id for stage in before.values()})
    found: dict[str, Difference] = {}  # stage → why it is new
    groups: dict[tuple[str, str], list[Difference]] = {}
    for trial in plan.trials:
        for role, stage_id in trial.stages.items():
            old, new = before.get((trial.arm, trial.seed, role)), plan.stages[stage_id]
            if stage_id in finished or stage_id in found or old is None:
                continue
            if old.id == stage_id or old.id not in done or old.kind != new.kind:
                continue
            found[stage_id] = difference = _difference(store, plan, old, new, found)
            groups.setdefault((new.kind, str(difference)), []).append(difference)
    return [New(kind, len(those), those[0]) for (kind, _), those in groups.items()]


def _before(store: Store, plan: Plan) -> dict[tuple[str, int, str], Stage]:
    """Arm, seed, role → the stage that was there last, of a registration with other stages."""
    registered, _ = store.registrations(plan.study, ())
    found: dict[tuple[str, int, str], Stage] = {}
    for earlier, _ in sorted(registered, key=lambda one: one[1].registered_at):
        for trial in earlier.trials:
            for role, stage_id in trial.stages.items():
                found[trial.arm, trial.seed, role] = earlier.stages[stage_id]
    return found


def _difference(
    store: Store, plan: Plan, old: Stage, new: Stage, known: Mapping[str, Difference]
) -> Difference:
    names = sorted(set(old.inputs) | set(new.inputs))
    return Difference(
        code=_code(store, old, new) if old.code_fingerprint != new.code_fingerprint else {},
        config=_config(plan, old, new) if old.work.decides != new.work.decides else (),
        data=old.data_fingerprint != new.data_fingerprint,
        seed=old.seed != new.seed,
        inputs={
            name: str(known.get(new.inputs.get(name, ""), ""))
            for name in names
            if old.inputs.get(name) != new.inputs.get(name)
        },
    )


def _code(store: Store, old: Stage, new: Stage) -> dict[str, list[str]]:
    before, now = store.code_parts(old.code_fingerprint), identity.parts_of(new.work.code)
    changed: dict[str, list[str]] = {"changed": [], "added": [], "removed": []}
    if before is not None:
        changed["changed"] = [n or "its function" for n in now if before.get(n, now[n]) != now[n]]
        changed["added"] = [name for name in now if name not in before]
        changed["removed"] = [name for name in before if name not in now]
    return changed


def _config(plan: Plan, old: Stage, new: Stage) -> tuple[str, ...]:
    """Paths of a stage's config that differ, but for those that decide no result."""
    free = [
        tuple(parts[start:])
        for parts in (path.replace(".*", "").split(".") for path in plan.free)
        for start in range(len(parts))  # a stage has a part of the whole config
    ]
    return tuple(
        path
        for path in _differing(old.config, new.config)
        if not any(tuple(path.split("."))[: len(one)] == one for one in free)
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


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
