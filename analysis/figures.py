"""Pictures as SVG text: pure functions of plain data, no plotting library, crisp at any size.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; nothing is
said by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ablations.short_labels import short_labels
from ablations.shown_text import in_html

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#007A5A", "#A8548A"
ORANGE, SKY, BLACK = "#C77F00", "#3A9BD9", "#222222"
PALETTE = (BLACK, BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("", "7 3", "2 3", "9 3 2 3")  # a second way to tell lines apart
INK, FAINT, GRID, BEHIND = "#222222", "#5c5c5c", "#e3e3e3", "#d3d3d3"
MOST_POINTS = 240  # of a curve; a page has no room for more
MOST_BEHIND = 60  # curves without a name that are drawn one by one
LONGEST = 36  # characters of a curve's name
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
WIDTH = 940  # of the drawing, in the page's own pixels

Points = Sequence[tuple[float, float]]  # step, value


@dataclass(frozen=True)
class ForestRow:
    """One effect. A row without `mean` is a heading."""

    label: str
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""  # printed at the right end


def forest(rows: Sequence[ForestRow], axis: str, *, noise: float | None = None) -> str:
    """Effects with their intervals around zero; `noise` shades plus and minus one noise floor.

    A filled mark's interval leaves zero out. An interval that leaves the picture ends in an arrow.
    """
    effects = [row for row in rows if math.isfinite(row.mean)]
    row_height, top = 26, 10
    left = 20 + 7.4 * max([len(row.label) for row in rows], default=0)
    right = 22 + 7.4 * max([len(row.note) for row in rows], default=0)
    left, right = min(left, 380), min(right, 320)
    low, high = _forest_range(effects, noise)
    bottom = top + row_height * len(rows)
    height = bottom + 48

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    parts = []
    if noise:
        a, b = x(max(low, -noise)), x(min(high, noise))
        parts.append(
            f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{bottom - top}" '
            'fill="#f0ead8"/>'
        )
    for tick in ticks(low, high):
        parts.append(_line(x(tick), top, x(tick), bottom, INK if tick == 0 else GRID))
        parts.append(_text(x(tick), bottom + 18, _tick_label(tick), anchor="middle", fill=FAINT))
    parts.append(_text((left + WIDTH - right) / 2, bottom + 39, axis, anchor="middle", fill=FAINT))
    for number, row in enumerate(rows):
        y = top + row_height * (number + 0.5)
        if not math.isfinite(row.mean) and not row.note:
            parts.append(_text(0, y + 5, row.label, weight=600))
            continue
        parts.append(_text(14, y + 5, row.label))
        parts.append(_text(WIDTH, y + 5, row.note, anchor="end"))
        if math.isfinite(row.mean):
            parts.extend(_whisker(row, x, y, low, high))
    return _svg(height, parts, "Effects with their intervals")


def _forest_range(effects: Sequence[ForestRow], noise: float | None) -> tuple[float, float]:
    means = [0.0, *(row.mean for row in effects)]
    ends = [e for row in effects for e in (row.low, row.high) if math.isfinite(e)]
    if noise:
        means += [-noise, noise]
    spread = max(means) - min(means) or 1.0
    # With two or three seeds an interval can be many times wider than any effect.
    low = max(min(means + ends), min(means) - 3 * spread)
    high = min(max(means + ends), max(means) + 3 * spread)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _whisker(row: ForestRow, x, y: float, low: float, high: float) -> list[str]:
    known = math.isfinite(row.low) and math.isfinite(row.high)
    sure = known and not row.low <= 0 <= row.high
    color = BLUE if sure else FAINT
    parts = []
    if known:
        a, b = x(max(row.low, low)), x(min(row.high, high))
        parts.append(_line(a, y, b, y, color, 2))
        for end, at, inside, out in (
            (row.low, a, row.low >= low, -1),
            (row.high, b, row.high <= high, 1),
        ):
            if inside:
                parts.append(_line(at, y - 5, at, y + 5, color, 2))
            else:
                back = at - 8 * out
                tip = f"{at:.1f},{y:.1f} {back:.1f},{y - 5:.1f} {back:.1f},{y + 5:.1f}"
                title = f"<title>{end:.3g}</title>"
                parts.append(f'<polygon points="{tip}" fill="{color}">{title}</polygon>')
    fill = color if sure else "#ffffff"
    parts.append(
        f'<circle cx="{x(row.mean):.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{color}" '
        'stroke-width="2"/>'
    )
    return parts


@dataclass(frozen=True)
class Band:
    """A curve over its seeds: mean and mean ± SD at the steps at which every seed has a number.

    `low` and `high` are the mean where there is one seed.
    """

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def band(seeds: Mapping[int, Points]) -> Band:
    """Mean and SD over seeds; of more than `MOST_POINTS` steps some, evenly, with the last."""
    tables = [{s: v for s, v in line if math.isfinite(v)} for line in seeds.values()]
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    if len(steps) > MOST_POINTS:
        last = len(steps) - 1
        steps = [steps[round(n * last / (MOST_POINTS - 1))] for n in range(MOST_POINTS)]
    means, spreads = [], []
    for step in steps:
        values = [table[step] for table in tables]
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        means.append(mean)
        spreads.append(math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0)
    pairs = list(zip(means, spreads, strict=True))
    return Band(
        tuple(steps), tuple(means), tuple(m - s for m, s in pairs), tuple(m + s for m, s in pairs)
    )


def curves(
    lines: Mapping[str, Mapping[int, Points]],
    x_label: str,
    y_label: str,
    *,
    behind: Iterable[Mapping[int, Points]] = (),
    log: bool = True,
) -> str:
    """Curves: name → seed → (step, value) points; the mean over seeds and a band of ± 1 SD.

    `behind` are curves without a name, grey: each mean where they are few, else the range that
    those means are in. With `log` the vertical axis is logarithmic where all means are positive.
    """
    left, top, bottom, height = 48, 28, 330, 376
    right = 55 + 7.4 * min(LONGEST, max(map(len, lines), default=0))
    bands = {name: band(seeds) for name, seeds in lines.items()}
    bands = {name: one for name, one in bands.items() if one.steps}
    others = [one for one in map(band, behind) if one.steps]
    means = [value for one in (*bands.values(), *others) for value in one.mean]
    if not means:
        return _svg(60, [_text(0, 34, "no curve has been stored yet", fill=FAINT)], y_label)
    last = max(one.steps[-1] for one in (*bands.values(), *others)) or 1.0
    log = log and min(means) > 0
    scale = math.log10 if log else float
    ends = [value for one in bands.values() for value in (*one.low, *one.high)]
    shown = [scale(value) for value in (*means, *ends) if not log or value > min(means) / 3]
    low, high = min(shown), max(shown)
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def x(step: float) -> float:
        return left + step / last * (WIDTH - left - right)

    def y(value: float) -> float:
        height = scale(value) if not log or value > 0 else low
        return bottom - (max(low, height) - low) / (high - low) * (bottom - top)

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)

    def area(steps: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> str:
        there = zip(steps, highs, strict=True)
        back = zip(reversed(steps), reversed(lows), strict=True)
        return path([*there, *back])

    parts = [_text(0, 12, y_label + (", logarithmic axis" if log else ""), fill=FAINT)]
    for tick in log_ticks(10**low, 10**high) if log else ticks(low, high):
        parts.append(_line(left, y(tick), WIDTH - right, y(tick), GRID))
        parts.append(_text(left - 8, y(tick) + 4.5, _tick_label(tick), anchor="end", fill=FAINT))
    for tick in ticks(0, last):
        parts.append(_line(x(tick), bottom, x(tick), bottom + 4, FAINT))
        parts.append(_text(x(tick), bottom + 19, _tick_label(tick), anchor="middle", fill=FAINT))
    parts.append(
        _text((left + WIDTH - right) / 2, height - 6, x_label, anchor="middle", fill=FAINT)
    )
    if len(others) > MOST_BEHIND:
        found: dict[float, list[float]] = {}
        for one in others:
            for step, value in zip(one.steps, one.mean, strict=True):
                found.setdefault(step, []).append(value)
        steps = sorted(found)
        lows, highs = ([f(found[step]) for step in steps] for f in (min, max))
        parts.append(f'<polygon points="{area(steps, lows, highs)}" fill="{BEHIND}"/>')
    else:
        parts += [
            f'<polyline points="{path(zip(one.steps, one.mean, strict=True))}" fill="none" '
            f'stroke="{BEHIND}"/>'
            for one in others
        ]
    marks, labels = [], short_labels(lines, LONGEST)
    styles = {name: line_style(number) for number, name in enumerate(lines)}
    for name, one in bands.items():
        if one.low != one.high:
            parts.append(
                f'<polygon points="{area(one.steps, one.low, one.high)}" '
                f'fill="{styles[name][0]}" fill-opacity="0.15"/>'
            )
    for name, one in bands.items():
        color, dash = styles[name]
        parts.append(
            f'<polyline points="{path(zip(one.steps, one.mean, strict=True))}" fill="none" '
            f'stroke="{color}" stroke-width="2" stroke-dasharray="{dash}" stroke-linejoin="round"/>'
        )
        marks.append((x(one.steps[-1]), y(one.mean[-1]), name, color, dash))
    heights = spread([mark[1] for mark in marks], 17, top, bottom)
    for (at, end, name, color, dash), label_y in zip(marks, heights, strict=True):
        edge = WIDTH - right
        parts.append(_line(at + 2, end, edge + 16, label_y, color, 0.75))
        parts.append(_line(edge + 16, label_y, edge + 38, label_y, color, 2, dash))
        parts.append(_text(edge + 43, label_y + 4.5, labels[name], fill=color, title=name))
    return _svg(height, parts, y_label)


def line_style(number: int) -> tuple[str, str]:
    """Colour and dash pattern of the n-th line: no two of the first 28 are the same."""
    return PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart until they are `gap` apart, each as little as a simple pass allows."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    edge = low
    for i in order:
        moved[i] = edge = max(moved[i], edge)
        edge += gap
    edge = high
    for i in reversed(order):
        moved[i] = edge = min(moved[i], edge)
        edge -= gap
    return moved


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within [low, high] for a logarithmic axis; where the two are one, that."""
    if low == high:  # the first report of the first training
        return [low]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for marks in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [m * 10.0**d for d in decades for m in marks if low <= m * 10.0**d <= high]
        if len(found) >= 4:
            return found
    return ticks(low, high)


def _tick_label(value: float) -> str:
    return f"{value:.6g}".replace("-", "−") if value else "0"


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    fill: str = INK,
    weight: int = 400,
    title: str = "",
) -> str:
    """A text; where it is a cut `title`, pointing at it shows the whole."""
    whole = f"<title>{in_html(title)}</title>" if title not in ("", text) else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{whole}{in_html(text)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, dash: str = ""
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>"
    )


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{in_html(title)}" font-family="{FONT}" font-size="13">'
        + "".join(parts)
        + "</svg>"
    )
