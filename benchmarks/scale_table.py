"""The table of docs/scale.md: every size of the paper on the smallest TPU slice that holds it.

Compiles each recipe with `mm1 aot --fit --json`, one after another, some minutes each; what was
compiled before is kept in a folder and not compiled again. Needs no TPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIZES = ("1b", "3b", "7b", "30b", "3b_moe", "7b_moe")
PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def compiled(size: str, kept: Path) -> dict[str, Any]:
    """What `mm1 aot --fit` says of a recipe."""
    file = kept / f"mm1_{size}.json"
    if not file.exists():
        recipe = ROOT / "ablations" / "recipes" / f"mm1_{size}.yaml"
        print(f"compiling {recipe.name} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "mm1", "aot", str(recipe), "--fit", "--json"]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=False
        )
        if done.returncode not in (0, 1):
            sys.exit(done.returncode)
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(done.stdout, encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def mesh(made: dict[str, Any]) -> str:
    """Its axes that cut anything."""
    return " × ".join(f"{axis} {size}" for axis, size in made["mesh"].items() if size > 1)


def dominant(made: dict[str, Any]) -> str:
    """The two kinds of collectives that send most, gigabytes a chip."""
    kinds = sorted(made["collectives"].items(), key=lambda item: -item[1]["sent_bytes"])
    return ", ".join(f"{kind} {figures['sent_bytes'] / 1e9:.1f}" for kind, figures in kinds[:2])


def held(made: dict[str, Any]) -> str:
    """GiB a chip, or by how many it does not fit."""
    if made["fits"]:
        return f"{made['bytes_per_chip'] / 2**30:.1f}"
    return f"does not fit, by {made['missing_bytes'] / 2**30:.1f}"


def took(made: dict[str, Any], unit: float, digits: int) -> str:
    """The roofline's time in 1 / `unit` seconds; none where it does not fit."""
    return f"{unit * made['roofline_seconds']:.{digits}f}" if made["fits"] else "–"


def table(sizes: dict[str, dict[str, Any]]) -> str:
    """Training, then generation, as Markdown."""
    lines = [
        "| recipe | slice | mesh | micro-batches | GiB a chip | PFLOP a step | arithmetic, s "
        "| HBM, s | links, s | MFU ceiling | most sent, GB a chip |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size, made in sizes.items():
        start = f"| `mm1_{size}` | {made['topology']} | {mesh(made)} | {made['micro_batches']} "
        if not made["fits"]:
            lines.append(start + f"| does not fit, by {made['missing_bytes'] / 2**30:.1f} |")
            continue
        lines.append(
            start + f"| {made['bytes_per_chip'] / 2**30:.1f} "
            f"| {made['flops_per_step'] / 1e15:.1f} | {made['compute_seconds']:.2f} "
            f"| {made['hbm_seconds']:.2f} | {made['ici_seconds']:.2f} "
            f"| {100 * made['mfu_ceiling']:.0f} % | {dominant(made)} |"
        )
    lines += [
        "",
        "| recipe | queries at once | prefill: GiB a chip | s | one token: GiB a chip | ms |",
        "|---|---|---|---|---|---|",
    ]
    for size, made in sizes.items():
        programs = {one["what"]: one for one in made["programs"]}
        if "decode" not in programs:
            continue
        prefill, decode = programs["prefill"], programs["decode"]
        lines.append(
            f"| `mm1_{size}` | {decode['tokens_per_step']} "
            f"| {held(prefill)} | {took(prefill, 1, 2)} | {held(decode)} | {took(decode, 1e3, 1)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compile what is missing and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--kept", type=Path, default=ROOT / ".mm1" / "scale")
    options = parser.parse_args()
    sizes = {size: compiled(size, options.kept) for size in options.sizes}
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + table(sizes) + END + after, encoding="utf-8")
    print(table(sizes), end="")


if __name__ == "__main__":
    main()
