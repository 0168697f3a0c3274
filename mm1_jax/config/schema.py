"""What all configs have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

# A field that may change how fast or how observably a stage runs, but never its results,
# carries this mark and stays outside the stage's identity.
NOT_IDENTITY: JsonDict = {"identity": False}

# What is meant by a field that is not written follows from other fields; so its value is not
# carried over where a design changes the kind.
FOLLOWS: JsonDict = {"follows": True}

# Larger numbers are no model or run that anybody has, and would fill the memory of who plans it.
LARGEST = 2**24
Count = Annotated[int, Field(gt=0, le=LARGEST)]  # of weights side by side, tokens, rows, images
Vocabulary = Annotated[int, Field(ge=300, le=LARGEST)]
Side = Annotated[int, Field(gt=0, le=16_384)]  # pixels
Layers = Annotated[int, Field(gt=0, le=10_000)]


class Config(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PresetConfig(Config):
    """A config whose key `preset: NAME` stands for the fields of a published shape.

    Fields written beside it win. The name is gone once it is read: what is kept, hashed and shown
    is what it stands for.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "preset" not in values:
            return values
        name = values["preset"]
        if not isinstance(name, str) or name not in cls.presets:
            raise PydanticCustomError(
                "preset", "preset {name} is not valid", {"name": str(name), "known": [*cls.presets]}
            )
        written = {key: value for key, value in values.items() if key != "preset"}
        return {**cls.presets[name], **written}


def assumed(kind: str) -> BeforeValidator:
    """In a union of kinds, the one that is meant where no `kind` is written."""

    def fill(value: Any) -> Any:
        return {"kind": kind, **value} if isinstance(value, dict) else value

    return BeforeValidator(fill)


def check_heads(part: str, width: int, heads: int) -> None:
    """Raise ValueError, with the nearest possible number, unless `heads` divides `width`."""
    if width % heads:
        raise ValueError(
            f"{part} width {width} is not divisible by {heads} heads; "
            f"nearest: {nearest_divisor(width, heads)} heads"
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`; of two the smaller."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return min((*small, *(number // d for d in small)), key=lambda d: (abs(d - wanted), d))
