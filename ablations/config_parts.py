"""Many configs that are mostly the same, with what they share kept once.

The arms of a study differ from its base in a few values, and each of their trainings holds much of
its arm's config. So every distinct mapping is a *part*, which has the parts in it by number:

    0   {kind: average_pooling, tokens: 4}
    1   {kind: vit, width: 64, layers: 2}
    2   {encoder: {part: 1}, connector: {part: 0}, steps: 1000}     an arm
    3   {encoder: {part: 1}, connector: {part: 0}, steps: 2000}     another
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

PART = "part"


class ConfigParts:
    """Distinct mappings, each after those in it. Whoever is given one changes nothing of it."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []  # as plain values, parts by number
        self._whole: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}  # JSON of what is written → its number
        # By object, each kept here so that no other takes its place.
        self._seen: dict[int, tuple[Mapping[str, Any], int]] = {}

    def number(self, config: dict[str, Any]) -> int:
        """The number of a config; it is kept if there is none like it."""
        seen = self._seen.get(id(config))
        if seen is not None:
            return seen[1]
        written = {
            key: {PART: self.number(value)} if isinstance(value, dict) else value
            for key, value in config.items()
        }
        text = json.dumps(written)
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._keep(written)
        self._seen[id(config)] = config, number
        return number

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The config of a number; its parts are those of others where they are equal."""
        return self._whole[number]

    def _keep(self, written: dict[str, Any]) -> int:
        whole = {
            key: self._whole[value[PART]] if isinstance(value, dict) else value
            for key, value in written.items()
        }
        number = len(self._whole)
        self._whole.append(whole)
        self.written.append(written)
        return number

    @classmethod
    def read(cls, written: Iterable[Mapping[str, Any]]) -> ConfigParts:
        """From what `written` was. Raises `LookupError` or `TypeError` for anything else."""
        parts = cls()
        for one in written:
            parts._keep(dict(one))
        return parts
