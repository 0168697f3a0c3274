"""Where an official task lies and how it is asked."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from ablations.schema import NOT_IDENTITY, Config
from mm1_jax.config.questions import LONGEST_ANSWER

_IN_PROMPTS = ("prompt", "question")  # what stands in braces in a prompt


def unknown_in_prompt(prompt: str) -> str | None:
    """What is wrong with a prompt's words in braces; None if nothing is."""
    odd = next((name for name in re.findall(r"\{(\w+)\}", prompt) if name not in _IN_PROMPTS), None)
    if odd is None:
        return None
    valid = ", ".join(f"{{{name}}}" for name in _IN_PROMPTS)
    return f"{prompt!r} has an unknown {{{odd}}}; valid: {valid}"


class OfficialSettings(Config):
    """Where an official task lies and how it is asked."""

    folder: str = Field(
        min_length=1,
        description="relative to the working directory",
        json_schema_extra=NOT_IDENTITY,
    )
    annotations: str | None = Field(
        None,
        description="what is asked, a file or folder in `folder`; null: test, else all of it",
        json_schema_extra=NOT_IDENTITY,
    )
    train: str | None = Field(
        None,
        description="what demonstrations are drawn from; null: train, if it is there",
        json_schema_extra=NOT_IDENTITY,
    )
    images: str | None = Field(
        None, description="null: images, else all of `folder`", json_schema_extra=NOT_IDENTITY
    )
    edition: str | None = Field(
        None,
        description="any name for the state of the image files: images that were changed under the "
        "same names are another evaluation under another edition",
    )
    prompt: str | None = Field(
        None,
        description="after the images: {prompt} is the task's own, {question} the question alone; "
        "null: the paper's, `catalogue`",
    )
    separator: str = Field("\n\n", description="after each demonstration")
    stop: tuple[str, ...] = Field(("\n",), description="an answer ends before any of these")
    longest_answer: int = Field(20, ge=1, le=LONGEST_ANSWER, description="tokens")
    reasoning: bool = Field(
        False,
        description="demonstrations say why before their answer (chain of thought), and an answer "
        "is what follows `The answer is`; longest_answer and stop must leave room for it",
    )

    @field_validator("prompt")
    @classmethod
    def _known_in_prompt(cls, prompt: str | None) -> str | None:
        if prompt is not None and (wrong := unknown_in_prompt(prompt)) is not None:
            raise ValueError(wrong)
        return prompt


class OfficialStage(OfficialSettings):
    """The same in a resolved stage, with the hash of the annotations."""

    prompt: str
    module: str = Field(description="import path of the task")
    content: str
