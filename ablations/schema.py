"""What all configs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

# A field that may change how fast or how observably a stage runs, but never its results,
# carries this mark and stays outside the stage's identity.
NOT_IDENTITY: JsonDict = {"identity": False}

# What is meant by a field that is not written follows from other fields; so its value is not
# carried over where a design changes the kind.
FOLLOWS: JsonDict = {"follows": True}


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
