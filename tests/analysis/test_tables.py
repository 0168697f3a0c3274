"""Tables from elsewhere: what is understood, what is refused, the same verdicts however told."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from ablations.errors import UserError
from analysis.compare import Comparison, render_made
from analysis.tables.claims_file import inline_claims
from analysis.tables.comparison import table_comparison, table_results
from analysis.tables.files import read_bytes
from analysis.tables.raw import Raw
from analysis.tables.reading import Reading
from analysis.tables.understood import Understood, understand

A = (50.3, 50.1, 51.2, 50.9, 50.6)
B = (52.1, 50.8, 53.0, 51.6, 52.4)


def raw(text: str, kind: str = "CSV") -> Raw:
    return read_bytes(text.encode(), "t.csv", "t", "", kind)


def understood(text: str, **reading: Any) -> Understood:
    return understand(raw(text), Reading(**reading))


def compared(text: str | Raw, *claims: str, alpha: float = 0.05, **reading: Any) -> Comparison:
    source = raw(text) if isinstance(text, str) else text
    file = inline_claims(claims, alpha) if claims else None
    return table_comparison(table_results(source, Reading(**reading), file, is_inline=True))


def verdict(text: str | Raw, claim: str, **reading: Any) -> Any:
    (found,) = compared(text, claim, **reading).claims
    return found


def long_of(arms: dict[str, tuple[float, ...]], column: str = "model") -> str:
    rows = [f"{arm},{n},{value}" for arm, own in arms.items() for n, value in enumerate(own)]
    return "\n".join([f"{column},seed,accuracy", *rows])


ARMS = {"a": A, "b": B}
PAIR = long_of(ARMS)


# -- known answers ------------------------------------------------------------------------------


def test_the_paired_t_test_is_the_known_one() -> None:
    one = verdict(PAIR, "score(b) > score(a)")
    assert (one.verdict, one.n, one.standing) == ("supported", 5, "exploratory")
    assert one.effect == pytest.approx(1.36)
    assert one.p_value == pytest.approx(0.003622, abs=5e-7)
    assert (one.ci_low, one.ci_high) == pytest.approx((0.785587, 1.934413), abs=5e-7)
    first = long_of({"a": A[:3], "b": B[:3]})
    assert verdict(first, "score(b) > score(a)").p_value == pytest.approx(0.029823, abs=5e-7)
    (effect,) = compared(PAIR).effects
    assert (effect.ci_low, effect.ci_high) == pytest.approx((0.611904, 2.108096), abs=5e-7)


def test_equivalence_is_the_known_one() -> None:
    e1, e2 = (50.2, 49.7, 50.5, 50.1, 49.9), (50.0, 50.1, 50.2, 50.4, 49.8)
    text = long_of({"e1": e1, "e2": e2})
    one = verdict(text, "score(e1) == score(e2) within 1")
    assert (one.verdict, one.effect) == ("supported", pytest.approx(-0.02))
    assert one.p_value == pytest.approx(0.001075, abs=5e-7)
    assert (one.ci_low, one.ci_high) == pytest.approx((-0.316932, 0.276932), abs=5e-7)
    close = verdict(text, "score(e1) == score(e2) within 0.3")
    assert (close.verdict, close.p_value) == ("undecided", pytest.approx(0.057381, abs=5e-7))


FACTORIAL = {
    ("224", "64"): (40.1, 41.0, 40.4),
    ("224", "144"): (41.2, 41.9, 41.5),
    ("336", "64"): (43.0, 43.8, 43.5),
    ("336", "144"): (45.9, 46.4, 46.0),
}


def factorial() -> str:
    rows = [
        f"{res},{tokens},{seed},{value}"
        for (res, tokens), own in FACTORIAL.items()
        for seed, value in enumerate(own)
    ]
    return "\n".join(["config.res,config.tok,config.seed,summary.acc", *rows])


def test_effects_of_a_factorial_are_the_known_ones() -> None:
    larger = verdict(factorial(), "effect(res, 224 -> 336) > effect(tok, 64 -> 144)")
    assert larger.p_value == pytest.approx(0.000461, abs=5e-7)
    sized = verdict(factorial(), "effect(res, 224 -> 336) > abs(effect(tok, 64 -> 144))")
    assert sized.p_value == pytest.approx(0.000461, abs=5e-7)
    made = compared(factorial())
    by_factor = {one.factor: one for one in made.effects}
    assert list(by_factor["res"].by_seed.values()) == pytest.approx([3.8, 3.65, 3.8])
    assert list(by_factor["tok"].by_seed.values()) == pytest.approx([2.0, 1.75, 1.8])
    interaction = verdict(
        factorial(),
        "effect(tok, 64 -> 144, at: {res: 336}) > effect(tok, 64 -> 144, at: {res: 224})",
    )
    assert list(interaction.by_seed.values()) == pytest.approx([1.8, 1.7, 1.4])
    assert interaction.p_value == pytest.approx(0.005371 / 2, abs=5e-7)


def test_a_trend_is_the_known_one() -> None:
    rows = (
        (58.0, 59.1, 60.2, 60.9, 61.3),
        (57.2, 58.9, 59.4, 60.1, 61.5),
        (58.4, 58.8, 60.0, 61.2, 61.1),
    )
    levels = (0, 25, 50, 75, 100)
    text = "\n".join(
        [
            "mixture,seed,score",
            *(
                f"{x},{seed},{y}"
                for seed, own in enumerate(rows)
                for x, y in zip(levels, own, strict=True)
            ),
        ]
    )
    one = verdict(text, "slope(mixture) > 0")
    assert one.effect == pytest.approx(0.034667, abs=5e-7)
    assert one.p_value == pytest.approx(0.002321, abs=5e-7)


def test_holm_corrects_over_all_claims_of_the_table() -> None:
    rng = np.random.default_rng(3)
    arms = {"a": tuple(rng.normal(50, 1, 6))}
    arms |= {f"b{n}": tuple(np.array(arms["a"]) + rng.normal(n / 2, 1, 6)) for n in range(5)}
    made = compared(long_of(arms), *(f"score(b{n}) > score(a)" for n in range(5)))
    p = sorted(one.p_value for one in made.claims)
    stepped = np.minimum(1, np.maximum.accumulate([(5 - k) * one for k, one in enumerate(p)]))
    assert sorted(one.p_adjusted for one in made.claims) == pytest.approx(list(stepped))


# -- invariances --------------------------------------------------------------------------------


def outcome(text: str | Raw, claim: str = "score(b) > score(a)", **reading: Any) -> tuple[Any, ...]:
    one = verdict(text, claim, **reading)
    return one.verdict, one.n, round(one.p_value, 12), round(one.effect, 9)


def test_the_order_of_rows_and_columns_and_the_layout_change_nothing() -> None:
    wanted = outcome(PAIR)
    frame = pandas.read_csv(io.StringIO(PAIR))
    made = compared(PAIR).model_dump()
    for shuffled in (frame.sample(frac=1, random_state=1), frame.iloc[:, ::-1], frame.iloc[::-1]):
        text = shuffled.to_csv(index=False)
        assert outcome(text) == wanted
        assert repr(compared(text).model_dump()) == repr(made)
    long = frame.melt(["model", "seed"], var_name="metric", value_name="value")
    assert outcome(long.to_csv(index=False)) == wanted
    assert outcome(long.to_csv(index=True)) == wanted
    seeds = frame.pivot(index="model", columns="seed", values="accuracy").add_prefix("seed_")
    assert outcome(seeds.reset_index().to_csv(index=False)) == wanted
    arms = frame.pivot(index="seed", columns="model", values="accuracy").reset_index()
    assert outcome(arms.to_csv(index=False), across="arms") == wanted
    for text in (frame.to_json(orient="records"), frame.to_json(orient="records", lines=True)):
        assert outcome(raw(text, "JSON")) == wanted
    binary = io.BytesIO()
    frame.to_parquet(binary)
    assert outcome(read_bytes(binary.getvalue(), "t", "t", "", None)) == wanted
    binary = io.BytesIO()
    frame.to_excel(binary, index=False)
    assert outcome(read_bytes(binary.getvalue(), "t", "t", "", None)) == wanted
    european = frame.to_csv(index=False, sep=";", decimal=",")
    assert outcome(european) == wanted


def test_names_of_arms_and_units_change_no_verdict() -> None:
    wanted = outcome(PAIR)
    renamed = long_of({'say "x", y': A, "ours (v2)": B}).replace('say "x", y', "old one")
    assert outcome(renamed, 'score("ours (v2)") > score("old one")') == wanted
    for scale, shift in ((0.001, 0.0), (1000.0, 7.0)):
        other = long_of(
            {n: tuple(scale * y + shift for y in own) for n, own in (("a", A), ("b", B))}
        )
        assert outcome(other)[:2] == wanted[:2]
        assert outcome(other)[2] == pytest.approx(wanted[2], abs=1e-9)
    assert outcome(PAIR, "score(a) > score(b)")[0] == "refuted"
    constant = long_of(
        {n: tuple(y + 3 * k for k, y in enumerate(o)) for n, o in (("a", A), ("b", B))}
    )
    assert outcome(constant)[:3] == pytest.approx(wanted[:3])


# -- what is told -------------------------------------------------------------------------------


def test_broken_pairs_are_told_and_the_rest_decides() -> None:
    text = long_of({"a": A, "b": B[:4]})
    one = verdict(text, "score(b) > score(a)")
    assert one.n == 4
    (caveat,) = [c for c in one.caveats if c.word == "broken pairs"]
    assert "b has no seed 4" in caveat.told
    assert any("broken pairs: b lacks seed 4" in line for line in understood(text).problems)


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "-Infinity", "n/a"])
def test_a_run_without_a_number_leaves_its_claims_undecided(cell: str) -> None:
    text = PAIR.replace("b,3,51.6", f"b,3,{cell}")
    made = compared(text, "score(b) > score(a)")
    (one,) = made.claims
    assert one.verdict == "undecided"
    assert one.reason.startswith("b seed 3: ")
    assert any("b seed 3" in line for line in made.notices)
    (effect,) = made.effects  # the others are still shown
    assert effect.n == 4
    out = verdict(text, "score(b) > score(a)", exclude={"b seed 3": "its node died"})
    assert (out.verdict, out.n) == ("supported", 4)
    assert any("its node died" in caveat.told for caveat in out.caveats)


def test_a_run_that_is_there_twice_is_not_averaged_without_a_word() -> None:
    text = PAIR + "\nb,3,55.0"
    one = verdict(text, "score(b) > score(a)")
    assert one.verdict == "undecided"
    assert "b seed 3: is there 2 times (51.6, 55)" in one.reason
    assert verdict(text, "score(b) > score(a)", repeats="last").by_seed[3] == pytest.approx(4.1)
    assert verdict(text, "score(b) > score(a)", repeats="mean").by_seed[3] == pytest.approx(2.4)
    again = understood(PAIR + "\nb,3,51.6")
    assert any("there more than once and equal" in note for note in again.notes)


def test_one_seed_has_effects_and_no_verdict() -> None:
    text = "method,accuracy\na,50\nb,52"
    one = verdict(text, "score(b) > score(a)")
    assert (one.verdict, one.effect) == ("undecided", 2.0)
    assert one.reason == "1 seed has no spread to test against"
    (effect,) = compared(text).effects
    assert (effect.mean, effect.n) == (2.0, 1)
    assert math.isnan(effect.ci_low)


def test_seeds_in_names_are_asked_for_by_what_is_there() -> None:
    text = "run,acc\n" + "\n".join(f"{arm}_s{k},{y}" for arm in "ab" for k, y in enumerate(A))
    assert any("--names '{arm}_s{seed}'" in note for note in understood(text).notes)
    assert set(understood(text, names="{arm}_s{seed}").table.arms) == {"a", "b"}
    with pytest.raises(UserError, match=r"6 of 10 names|are not like that"):
        understood(text, names="{arm}-s{seed}")
    words = text.replace("_s", "_seed")  # in so many words
    assert understood(words).table.seeds == (0, 1, 2, 3, 4)
    size = "name,acc\nvit-s16,1\nvit-s32,2"  # no seeds, but sizes
    assert set(understood(size).table.arms) == {"vit-s16", "vit-s32"}


def test_a_run_that_crashed_counts_as_little_as_it_should() -> None:
    header = "name,state,arm,seed,lr,acc"
    rows = [f"{a}{s},finished,{a},{s},0.1,{y}" for a, o in ARMS.items() for s, y in enumerate(o)]
    text = "\n".join([header, *rows, "b3x,crashed,b,3,,7.5", "lost,failed,,,,"])
    found = understood(text)
    assert set(found.table.arms) == {"a", "b"}
    assert any("a crashed run is left out, a finished one is there" in p for p in found.problems)
    assert any("1 run did not end and tell no arm" in note for note in found.notes)
    assert outcome(text) == outcome(PAIR)
    only = text.replace("b3,finished", "b3,killed").replace("b3x,crashed,b,3,,7.5\n", "")
    one = verdict(only, "score(b) > score(a)")
    assert (one.verdict, "its run is killed" in one.reason) == ("undecided", True)


def test_a_mean_of_shares_and_per_cents_is_none() -> None:
    rows = [
        f"{m},{t},{s},{scale * (0.5 + 0.01 * s)}"
        for m in "ab"
        for t, scale in (("x", 1), ("y", 100))
        for s in range(3)
    ]
    text = "\n".join(["method,task,seed,score", *rows])
    assert not understood(text).table.averaged
    alike = text.replace("y,", "z,")
    assert "average" not in {task for task, *_ in understood(alike).table.metrics}


def test_tasks_are_no_seeds() -> None:
    rows = [f"{m},{t},{50 + k + (m == 'b')}" for m in "ab" for k, t in enumerate(("gqa", "vqa"))]
    text = "\n".join(["method,task,accuracy", *rows])
    for claim in ("score(b, task=gqa) > score(a, task=gqa)", "score(b, task=average) > 3"):
        one = verdict(text, claim)
        assert (one.verdict, one.n) == ("undecided", 1)
    with pytest.raises(UserError, match="a task is no replicate"):
        understood(text, seed="task")
    with pytest.raises(UserError, match="folds share most of their training data"):
        understood(text.replace("task", "fold"), seed="fold")


def test_items_of_a_run_are_one_number() -> None:
    rows = [
        f"{arm},{seed},q{item},{value + (item - 1)}"
        for arm, own in (("a", A), ("b", B))
        for seed, value in enumerate(own)
        for item in range(3)
    ]
    text = "\n".join(["model,seed,question_id,accuracy", *rows])
    assert outcome(text) == outcome(PAIR)


def test_two_units_are_refused() -> None:
    text = PAIR.replace("b,3,51.6", "b,3,0.516")
    with pytest.raises(UserError, match=r"two units: 0.516 \(b seed 3\) beside 50.3 \(a seed 0\)"):
        compared(text, "score(b) > score(a)")
    assert any("two units" in line for line in compared(text).warnings)
    assert compared(text, "score(b) > score(a)", as_is=("accuracy",)).claims
    per_cent = PAIR.replace("b,3,51.6", "b,3,51.6%")
    with pytest.raises(UserError, match="two units"):
        compared(per_cent, "score(b) > score(a)")


@pytest.mark.parametrize(
    ("text", "reading", "told"),
    [
        (PAIR, {"seed": "sed"}, "--seed 'sed': there is no such column; did you mean 'seed'?"),
        (PAIR, {"lower": ("acc",)}, "--lower: no metric 'acc'; valid: accuracy"),
        (PAIR, {"base": "c"}, "--base: no arm 'c'; valid: a, b"),
        (PAIR, {"exclude": {"c seed 1": "x"}}, "--exclude: no run 'c seed 1'"),
        (PAIR.replace("51.6", "51,6x"), {}, "t.csv:10"),
        (PAIR.replace("51.6", "51.6 ± 0.2"), {}, "row 10, column 'accuracy'"),
        (PAIR.replace("b,3,", "b,mean,"), {}, "column 'seed' has 'mean', and a seed is a whole"),
        ("model,accuracy\na,1\na,2\nb,1\nb,3", {}, "no column is the seed, and 'a' has several"),
        ("seed,x,y\n1,2,3\n2,3,4", {}, "If 'x', 'y' are arms, say --columns arms"),
        ("model,seed,data_seed,acc\na,1,2,3\nb,1,3,4", {}, "which column is the seed"),
        ("model,init_seed,data_seed,acc\na,1,2,3\nb,2,2,4", {}, "which column is the seed"),
        (PAIR.replace("51.6", "lost it"), {}, "row 10, column 'accuracy'"),
        ("model,seed,model,acc\na,1,2,3", {}, "two columns are called 'model'"),
        ("", {}, "is empty"),
        ("model,seed,accuracy", {}, "there are no rows"),
    ],
)
def test_what_cannot_be_told_is_asked(text: str, reading: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        understood(text, **reading)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_claims_on_what_is_not_there_name_what_is() -> None:
    for claim, told in (
        ("score(c) > score(a)", "no arm 'c'; valid: a, b"),
        ("score(b, metric=acc) > 1", "no metric 'acc'"),
        ("effect(size, 1 -> 2) > 0", "no factor 'size' in the design; valid: model"),
    ):
        with pytest.raises(UserError, match="claim 'claim'") as error:
            compared(PAIR, claim)
        assert told in str(error.value)


def test_a_metric_that_is_not_named_is_not_guessed() -> None:
    two = PAIR.replace("accuracy", "accuracy,loss").replace("\na,", "\na,").splitlines()
    text = "\n".join([two[0], *(line + ",1.5" for line in two[1:])])
    with pytest.raises(UserError, match="say which metric is meant"):
        compared(text, "score(b) > score(a)")
    assert verdict(text, "score(b) > score(a)", primary="accuracy").verdict == "supported"
    found = understood(text)
    assert found.table.record("", "loss").goal == "minimise"
    lower = verdict(text, "score(b, metric=loss) < score(a, metric=loss)")
    assert "lower is better" in {caveat.word for caveat in lower.caveats}


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("accuracy", "maximise"),
        ("val/loss", "minimise"),
        ("eval/mybench_acc,none", "maximise"),
        ("word_perplexity", "minimise"),
        ("error_rate", "minimise"),
        ("exact_match", "maximise"),
        ("accuracy_loss", None),
        ("loss_scale", None),
        ("neg_log_loss", None),
        ("1-accuracy", None),
        ("accuracy_drop", None),
        ("score", None),
        ("acc_gap", None),
        ("top1_error", None),
        ("Top-1 (%)", "maximise"),
        ("top-1 error", "minimise"),
        ("error_recovery_accuracy", None),
        ("depth_map", None),
        ("inverse_perplexity", None),
    ],
)
def test_a_direction_is_known_only_without_doubt(name: str, goal: str | None) -> None:
    from analysis.tables.directions import by_name

    assert by_name(name) == goal


def test_a_direction_that_nobody_knows_is_asked_for_where_it_matters() -> None:
    rows = "\n".join(
        f"{m},{s},{k + s / 10 + s * k / 30}" for k, m in enumerate("abc") for s in range(4)
    )
    text = "model,seed,reward\n" + rows
    with pytest.raises(UserError, match="nobody has said which way reward is better"):
        compared(text, "best(model) == c")
    assert any("which way is better of reward" in line for line in compared(text).warnings)
    assert verdict(text, "best(model) == c", higher=("reward",)).verdict == "supported"
    assert verdict(text, "best(model) == c", lower=("reward",)).verdict == "refuted"


HOSTILE = (
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x")',
    "\x1b[31mred\x1b[0m",
    r"\input{/etc/passwd}",
    "\u202eevil\u2066",
)


def test_hostile_text_is_shown_as_text_in_every_form() -> None:
    for text in HOSTILE:
        rows = [
            {text: arm, "seed": s, f"acc {text}": y, "note": text}
            for arm, own in ((f"a{text}", A), (f"b{text}", B))
            for s, y in enumerate(own)
        ]
        source = raw(json.dumps(rows), "JSON")
        found = understand(source, Reading(arm=" ".join(text.split())))
        arm = next(name for name in found.table.arms if name.startswith("b"))
        quoted = f"'{arm}'" if '"' in arm else f'"{arm}"'
        reading = Reading(arm=" ".join(text.split()))
        file = inline_claims([f"score({quoted}) > 1"], 0.05)
        made = table_comparison(table_results(source, reading, file, is_inline=True))
        for form, never in (
            ("text", ("\x1b", "\u202e", "\u2066")),
            ("markdown", ("<script>", "\x1b", "\u202e")),
            ("latex", (r"\input", "\x1b", "\u202e")),
            ("json", ("\x1b", "\u202e")),
        ):
            shown = render_made(made, form)
            assert not any(one in shown for one in never), (form, text)


def test_the_smallest_effect_is_that_of_the_noncentral_t() -> None:
    from analysis.tables.power import detectable

    known = {2: 5.79, 3: 2.30, 4: 1.65, 5: 1.36, 6: 1.19, 8: 0.98, 10: 0.85, 12: 0.77}
    for n, effect in known.items():
        assert detectable(1.0, n, 0.05) == pytest.approx(effect, abs=0.006)
    assert math.isnan(detectable(1.0, 1, 0.05))


def test_each_layout_of_settings_is_told_apart(tmp_path: Path) -> None:
    """Settings that vary together are one factor; who and where is none."""
    rows = [
        {
            "Name": f"run-{n}",
            "config.model": model,
            "config.width": {"s": 64, "l": 256}[model],
            "config.lr": lr,
            "config.seed": seed,
            "config.output_dir": f"/x/{n}",
            "host": f"h{n % 2}",
            "summary.val/acc": 50 + seed + 2 * (model == "l") + 10 * lr,
        }
        for n, (model, lr, seed) in enumerate(itertools.product("sl", (0.1, 0.01), range(3)))
    ]
    found = understand(raw(pandas.DataFrame(rows).to_csv(index=False)), Reading())
    assert set(found.table.design.factors) == {"model", "lr"}
    why = {column.name: column.why for column in found.roles.columns}
    assert why["config.width"] == "goes together with config.model, config.lr" or (
        "together with config.model" in why["config.width"]
    )
    assert [one[1] for one in found.table.metrics] == ["val/acc"]
