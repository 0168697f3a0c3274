"""What every evaluation stage is told and gives back, whichever part it scores.

One checkpoint, one task, one number of shots, one condition. Every example is kept with its
prompt, prediction, references and score, so that each number can be computed again from
`examples.parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, PositiveInt

from ablations.schema import NOT_IDENTITY, Config
from ablations.stage import ResultRow
from ablations.timeline import doing
from mm1_jax.config.official import OfficialStage
from mm1_jax.config.questions import Condition
from mm1_jax.config.training import MeshConfig

EXAMPLES_FILE = "examples.parquet"


class EvaluationStage(Config):
    """The resolved config of one evaluation stage."""

    task: str
    shots: NonNegativeInt = 0
    condition: Condition = "intact"
    items: PositiveInt | None = None
    seed: NonNegativeInt = Field(0, description="of subsets, shuffles and demonstrations")
    sharp_images: NonNegativeInt | None = None
    batch_size: PositiveInt = Field(256, json_schema_extra=NOT_IDENTITY)
    mesh: MeshConfig | None = Field(None, json_schema_extra=NOT_IDENTITY)
    official: OfficialStage | None = None


@dataclass(frozen=True)
class Example:
    """One row of the examples table.

    The stage's value is the mean of `score` weighted by `weight`; a perplexity is exp of it.
    """

    item_id: str
    image_id: int  # that the model was shown; -1 where there is none
    prompt: str
    prediction: str
    references: list[str]
    score: float
    weight: float = 1.0
    image_file: str = ""  # of an official task's first image


@doing("save")
def write_examples(examples: Sequence[Example], folder: Path) -> None:
    """Write `examples.parquet` into the output folder of a stage."""
    table = pa.Table.from_pylist([vars(example) for example in examples])
    pq.write_table(table, folder / EXAMPLES_FILE)


def rows_of(
    stage: EvaluationStage,
    metrics: Mapping[str, float],
    *,
    step: int,
    n_items: int,
    errors: Mapping[str, float | None] | None = None,
) -> list[ResultRow]:
    """The stage's part of the result table; `step` is the last of the training that is scored.

    `errors` are standard errors over items, of the metrics that have one.
    """
    return [
        ResultRow(
            task=stage.task,
            metric=metric,
            value=value,
            split="test",
            shots=stage.shots,
            condition=stage.condition,
            step=step,
            n_items=n_items,
            standard_error=(errors or {}).get(metric),
        )
        for metric, value in metrics.items()
    ]
