"""A small network that names irises, in PyTorch: a script as people have it, changed in nothing.

    python train.py --config config.yaml --seed 0 --out runs/0

It writes metrics.jsonl, a line an epoch, keeps its last checkpoint in --out, and goes on from it.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
import yaml
from torch import nn


def flowers(path):
    """Lengths (150, 4), standardised, and species (150,) as numbers."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    lengths = torch.tensor([[float(cell) for cell in row[:4]] for row in rows])
    names = sorted({row[4] for row in rows})
    species = torch.tensor([names.index(row[4]) for row in rows])
    return (lengths - lengths.mean(0)) / lengths.std(0), species


def network(width, dropout):
    """Two layers."""
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3))


def main():
    """Train from the last checkpoint, or from the beginning."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    config = yaml.safe_load(asked.config.read_text(encoding="utf-8"))

    torch.manual_seed(asked.seed)
    torch.use_deterministic_algorithms(True)
    lengths, species = flowers(asked.data)
    order = torch.randperm(len(species))
    trained, tested = order[:75], order[75:]
    model = network(config["model"]["width"], config["model"]["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    first, checkpoint = 0, asked.out / "checkpoint.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        first = kept["epoch"]

    for epoch in range(first, config["epochs"]):
        torch.manual_seed(1_000_003 * asked.seed + epoch)  # the same when it goes on from here
        model.train()
        noisy = lengths[trained] + config["noise"] * torch.randn(len(trained), 4)
        loss = nn.functional.cross_entropy(model(noisy), species[trained])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            scores = model(lengths[tested])
        row = {
            "step": epoch + 1,
            "loss": loss.item(),
            "val/accuracy": 100 * (scores.argmax(1) == species[tested]).float().mean().item(),
            "val/loss": nn.functional.cross_entropy(scores, species[tested]).item(),
        }
        with open(asked.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**kept, "epoch": epoch + 1}, checkpoint)


if __name__ == "__main__":
    main()
