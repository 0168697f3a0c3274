"""Ridge regression on random features names irises: a Hydra app.

    python app.py features.count=64 seed=1 hydra.run.dir=runs/1

It writes results.json into Hydra's folder of the run.
"""

import csv
import json
from pathlib import Path

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Draw features, solve, and score on the flowers that were left out."""
    with open(hydra.utils.to_absolute_path(config.data), encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    names = sorted({row[4] for row in rows})
    lengths = np.array([[float(cell) for cell in row[:4]] for row in rows])
    lengths = (lengths - lengths.mean(0)) / lengths.std(0)
    species = np.array([names.index(row[4]) for row in rows])

    draw = np.random.default_rng(config.seed)
    order = draw.permutation(len(species))
    trained, tested = order[:75], order[75:]
    weights = draw.normal(size=(4, config.features.count)) * config.features.scale
    phases = draw.uniform(0, 2 * np.pi, config.features.count)
    features = np.cos(lengths @ weights + phases)
    wanted = np.eye(3)[species[trained]]
    gram = features[trained].T @ features[trained] + config.ridge * np.eye(len(phases))
    solved = np.linalg.solve(gram, features[trained].T @ wanted)
    right = {
        name: float(100 * np.mean((features[part] @ solved).argmax(1) == species[part]))
        for name, part in (("train", trained), ("test", tested))
    }
    results = {f"{name}.accuracy": value for name, value in right.items()}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
