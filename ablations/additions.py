"""More seeds, or another level, written into the text of a study file; all else stays as it was.

A study that is added to is another registration, with the standing that follows: who adds after
looking at results has looked (docs/trust.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ablations.errors import UserError, nearest
from ablations.plan import Plan
from ablations.yaml_files import YamlDocument


def with_more_seeds(document: YamlDocument, count: int) -> str:
    """The text with so many more seeds: the next numbers after the largest.

    Raises `UserError` for seeds that are drawn, or follow a rule.
    """
    written = document.value.get("seeds")
    node = _child(_root(document), "seeds")
    if isinstance(written, int) and isinstance(node, yaml.ScalarNode):
        return _replaced(document.text, node, str(written + count))
    if isinstance(written, list):
        more = range(max(written) + 1, max(written) + 1 + count)
        return _appended(document, node, list(map(str, more)))
    return document.fail(
        f"seeds: {written} is not a number or a list of seeds; seeds that are drawn or follow a "
        "rule cannot be added to: write a study of another name",
        ("seeds",),
    )


def with_level(document: YamlDocument, written: str) -> str:
    """The text with one more level of a factor, `factor=level` as arms are called.

    Raises `UserError` where the design has no such factor with a plain list of levels.
    """
    factor, equals, level = written.partition("=")
    if not equals or not level:
        raise UserError(f"--arm {written!r}: give a factor and a level, such as optimizer.eps=1e-6")
    design = document.value.get("design")
    factors = design.get("one_at_a_time") if isinstance(design, Mapping) else None
    if not isinstance(factors, Mapping):
        document.fail(
            "only to a design of one_at_a_time can a single arm be added; write it into the file, "
            "then: mm1 add FILE",
            ("design",),
        )
    if factor not in factors:
        document.fail(f"no factor {factor!r}{nearest(factor, factors)}", ("design",))
    at = ("design", "one_at_a_time", factor)
    levels = factors[factor]
    if not isinstance(levels, list):
        document.fail(
            f"{factor} has named levels: write the new one into the file, then: mm1 add FILE", at
        )
    if level in map(str, levels):
        document.fail(f"{factor} has the level {level} already", at)
    node = _root(document)
    for key in at:
        node = _child(node, key)
    return _appended(document, node, [level])


def only_adds(old: Plan, new: Plan) -> str:
    """What a plan adds to another, in words.

    Raises `UserError` where it changes or leaves out something, or adds nothing.
    """
    if old.study != new.study:
        raise UserError(f"{new.path} is study {new.study!r}, not {old.study!r}")
    now = {(trial.arm, trial.seed): trial.stages for trial in new.trials}
    for trial in old.trials:
        place = f"{trial.arm} seed {trial.seed}"
        if (trial.arm, trial.seed) not in now:
            raise UserError(f"{new.path} leaves out {place}: that is no addition")
        if not trial.stages.items() <= now[trial.arm, trial.seed].items():
            raise UserError(
                f"{new.path} changes {place} (its config, data or code): that is no addition; end "
                "the run and run it anew, or give the study another name"
            )
    for name, text in old.claims.items():
        if " ".join(new.claims.get(name, "").split()) != " ".join(text.split()):
            raise UserError(f"{new.path} changes or leaves out the claim {name!r}: no addition")
    trials, claims = len(new.trials) - len(old.trials), set(new.claims) - set(old.claims)
    if new.hash == old.hash and not trials:
        raise UserError(f"{new.path} is what was registered: nothing is added")
    parts = [f"{trials} trials"] if trials else []
    parts += [f"claims {', '.join(sorted(claims))}"] if claims else []
    return " and ".join(parts) or "no trials, other words"


def _root(document: YamlDocument) -> Any:
    return yaml.compose(document.text, Loader=yaml.SafeLoader)


def _child(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _replaced(text: str, node: Any, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def _appended(document: YamlDocument, node: Any, items: list[str]) -> str:
    """The text with more items at the end of a list, which keeps its form."""
    text, last = document.text, node.value[-1]
    end = last.end_mark.index
    if node.flow_style:
        return text[:end] + "".join(f", {item}" for item in items) + text[end:]
    indent = " " * node.start_mark.column
    return text[:end] + "".join(f"\n{indent}- {item}" for item in items) + text[end:]
