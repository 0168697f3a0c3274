"""How a task may be asked: its conditions, and how much of it at most."""

from __future__ import annotations

from typing import Literal

# shuffled: every question gets another item's image; no_image: none, nor do the demonstrations;
# wrong_demonstrations: they show another task.
Condition = Literal["intact", "shuffled", "no_image", "wrong_demonstrations"]

# What an evaluation may be asked for: more fits no context, no memory or no test split.
MOST_SHOTS = 1_024
MOST_ITEMS = 10**9
MOST_ASKED_AT_ONCE = 2**16
LONGEST_ANSWER = 2**15  # tokens
