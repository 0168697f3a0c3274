"""Which crew does which stage: workers are pooled by what they hold."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ablations.plan import Plan
from ablations.resources import Shape
from ablations.stages import Stage


@dataclass(frozen=True)
class Crews:
    """The shapes that a plan's stages need, by name."""

    shapes: dict[str, Shape]  # crew → what each of its workers holds
    of: dict[str, str]  # stage → crew
    examples: dict[str, Shape]  # label of the first stage of each → the same, for people


def crews_of(plan: Plan, done: Collection[str], shape_of: Callable[[Stage], Shape]) -> Crews:
    """The crews of the stages that are not done.

    What nothing else waits for (an evaluation) follows on the worker that trains, if that holds
    enough; where its training is there already, it asks for no more than it needs itself.
    """
    known: dict[int, Shape] = {}  # by work, which stages of all seeds share
    awaited = {source for stage in plan.stages.values() for source in stage.inputs.values()}
    shapes: dict[str, Shape] = {}
    of: dict[str, str] = {}
    examples: dict[str, Shape] = {}
    for stage in _inputs_first(plan, done):
        shape = known.get(id(stage.work))
        if shape is None:
            shape = known[id(stage.work)] = shape_of(stage)
        if stage.id not in awaited:
            for source in stage.inputs.values():
                trained = shapes.get(of.get(source, ""))
                if trained is not None and trained.covers(shape):
                    shape = trained
        name = str(shape)
        if name not in shapes:
            examples[stage.label] = shape
        shapes.setdefault(name, shape)
        of[stage.id] = name
    return Crews(shapes, of, examples)


def _inputs_first(plan: Plan, done: Collection[str]) -> list[Stage]:
    missing = [stage for stage in plan.stages.values() if stage.id not in done]
    # What reads nothing that is missing first; a graph has few levels.
    levels: dict[str, int] = {}

    def level(stage: Stage) -> int:
        if stage.id not in levels:
            sources = [plan.stages[one] for one in stage.inputs.values() if one not in done]
            levels[stage.id] = 1 + max(map(level, sources), default=-1)
        return levels[stage.id]

    return sorted(missing, key=level)
