"""Decisions of the scheduler, without Ray and without a clock."""

from __future__ import annotations

import random
import statistics
import time
from heapq import heappop, heappush

import pytest
from noop_stage import a_plan, a_stage, having
from plain_scheduler import PlainScheduler

from ablations.plan import Plan
from sweeps import scheduler as module
from sweeps.scheduler import Scheduler


def plan_of(*stages, seeds=(1, 2)) -> Plan:
    empty = a_plan("p", {}, seeds=seeds)
    return empty.model_copy(update={"stages": {stage.id: stage for stage in stages}})


def training(name, seed=1, seconds=10.0, compile_class="A"):
    return a_stage(
        "train", {"arm": name}, seed, label=f"{name}{seed}", seconds=seconds,
        compile_class=compile_class,
    )  # fmt: skip


def evaluation(of, task="t", seconds=1.0, compile_class="E"):
    return a_stage(
        "evaluate", {"task": task}, of.seed, {"model": of.id}, label=f"{of.origin}/{task}",
        seconds=seconds, compile_class=compile_class,
    )  # fmt: skip


def pretraining(part, seed=1, seconds=10.0):
    return training(part, seed, seconds, compile_class=part)


def after(name, parts, seed=1, seconds=10.0):
    """A training that starts from the parts, of compile class M."""
    inputs = {f"part {number}": part.id for number, part in enumerate(parts)}
    return a_stage(
        "train", {"arm": name}, seed, inputs, label=f"{name}{seed}", seconds=seconds,
        compile_class="M",
    )  # fmt: skip


def label(plan, stage_id):
    return None if stage_id is None else plan.stages[stage_id].origin


def run_alone(plan, **options):
    """The order in which one worker does everything."""
    scheduler = Scheduler(plan, (), ["w"], **options)
    order = []
    while not scheduler.complete:
        stage_id = scheduler.next("w", 0)
        order.append(plan.stages[stage_id].origin)
        scheduler.finished(stage_id, 1.0)
    return order


def test_order_is_seed_major_then_longest_first_and_evaluations_follow():
    stages = []
    for seed in (2, 1):
        for name, seconds in (("short", 5.0), ("long", 20.0)):
            stage = training(name, seed, seconds)
            stages += [stage, evaluation(stage)]
    assert run_alone(plan_of(*stages)) == [
        "long1", "long1/t", "short1", "short1/t", "long2", "long2/t", "short2", "short2/t",
    ]  # fmt: skip


def test_order_does_not_depend_on_the_order_of_the_plan():
    stages = [training(f"x{number}", seed) for number in range(5) for seed in (1, 2)]
    assert run_alone(plan_of(*stages)) == run_alone(plan_of(*reversed(stages)))


def test_each_class_goes_to_its_home_worker():
    a1, b1 = training("a", 1), training("b", 1, compile_class="B")
    a2, b2 = training("a", 2), training("b", 2, compile_class="B")
    plan = plan_of(a1, b1, a2, b2)
    scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=100)
    first, second = scheduler.next("w", 0), scheduler.next("v", 0)
    assert {first, second} == {a1.id, b1.id}
    scheduler.finished(second, 10)
    assert plan.stages[scheduler.next("v", 5)].compile_class == (plan.stages[second].compile_class)
    scheduler.finished(first, 10)
    assert plan.stages[scheduler.next("w", 5)].compile_class == (plan.stages[first].compile_class)


def test_class_is_taken_over_only_if_waiting_costs_more_than_compiling():
    running, waiting = training("one"), training("two")
    for compile_seconds, expected in ((4.0, "two1"), (30.0, None)):
        plan = plan_of(running, waiting)
        scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=compile_seconds)
        assert scheduler.next("w", 0) in {running.id, waiting.id}
        taken = scheduler.next("v", 1.0)
        assert (taken is None) == (expected is None)


def test_nearly_finished_home_keeps_its_class_but_not_all_of_a_long_queue():
    stages = [training(f"x{number}") for number in range(3)]
    plan = plan_of(*stages)
    scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=4.0)
    order = [one for one, _ in sorted(((s.id, s) for s in stages), key=lambda p: p[0])]
    assert scheduler.next("w", 0) == order[0]
    # The home is free in 1 s and then takes the second; the third would wait 11 s.
    assert scheduler.next("v", 9.0) == order[2]


def test_plan_that_was_too_hopeful_does_not_keep_workers_idle():
    stages = [training(f"x{number}", seconds=0.1) for number in range(3)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"], compile_seconds=4.0)
    scheduler.next("w", 0)
    assert scheduler.next("v", 0.05) is None
    assert scheduler.next("v", 30.0) is not None


def test_evaluations_stay_with_the_worker_that_trained():
    train = training("a")
    tests = [evaluation(train, name, compile_class=name) for name in ("t", "u")]
    scheduler = Scheduler(plan_of(train, *tests), (), ["w", "v"], compile_seconds=4.0)
    scheduler.next("w", 0)
    assert scheduler.next("v", 1.0) is None  # nothing is ready
    scheduler.finished(train.id, 10)
    assert scheduler.next("v", 0) is None  # a second of work is not worth compiling
    first = scheduler.next("w", 0)
    assert first in {one.id for one in tests}
    assert scheduler.next("v", 10.5) is None


def test_finished_stages_are_not_offered_again():
    train = training("a")
    test = evaluation(train)
    scheduler = Scheduler(plan_of(train, test), {train.id}, ["w"])
    assert scheduler.next("w", 0) == test.id
    scheduler.finished(test.id)
    assert scheduler.complete


def test_failing_stage_is_tried_three_times_then_blocks_what_needs_it():
    bad, good = training("bad", seconds=20), training("good")
    plan = plan_of(bad, evaluation(bad), good, evaluation(good))
    scheduler = Scheduler(plan, (), ["w"])
    for again in (True, True, False):
        assert scheduler.next("w", 0) == bad.id
        assert scheduler.failed(bad.id) is again
    assert scheduler.next("w", 0) == good.id
    scheduler.finished(good.id, 1)
    scheduler.finished(scheduler.next("w", 0), 1)
    assert scheduler.complete
    assert scheduler.in_state("failed") == [bad.id]
    assert len(scheduler.in_state("blocked")) == 1


def test_mistake_of_the_user_is_not_tried_again():
    bad = training("bad")
    scheduler = Scheduler(plan_of(bad), (), ["w"])
    scheduler.next("w", 0)
    assert scheduler.failed(bad.id, again=False) is False


def test_stage_of_another_run_waits_and_comes_back():
    stage = training("a")
    test = evaluation(stage)
    scheduler = Scheduler(plan_of(stage, test), (), ["w"])
    scheduler.next("w", 0)
    scheduler.elsewhere(stage.id)
    assert scheduler.next("w", 0) is None
    assert not scheduler.complete
    scheduler.put_back(stage.id)
    assert scheduler.next("w", 0) == stage.id
    scheduler.elsewhere(stage.id)
    scheduler.finished(stage.id)
    assert scheduler.next("w", 0) == test.id


def test_remaining_time_learns_from_what_was_measured():
    stages = [training(f"x{number}", seconds=10) for number in range(4)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"])
    assert scheduler.remaining_seconds(0) == 20
    scheduler.finished(scheduler.next("w", 0), 100)
    assert scheduler.remaining_seconds(0) == 200  # three on two workers: two, then one
    scheduler.next("w", 0)
    assert scheduler.remaining_seconds(40) == 60 + 100


def test_remaining_time_counts_compilation_once_for_each_worker_and_what_waits_for_inputs():
    parts = [pretraining("encoder", seconds=20.0), pretraining("language", seconds=8.0)]
    last = after("a", parts)
    test = evaluation(last, seconds=3.0)
    stages = [having(stage, compile_seconds=5.0) for stage in (*parts, last, test)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"])
    assert scheduler.remaining_seconds(0) == (20 + 5) + (10 + 5) + (3 + 5)
    more = [having(stage, compile_seconds=5.0) for stage in map(training, "abc")]
    assert Scheduler(plan_of(*more), (), ["w"]).remaining_seconds(0) == 5 + 3 * 10


def test_remaining_time_follows_the_reports_of_running_stages_and_does_not_climb_without_end():
    """On a machine three times as slow as planned the first reports tell, not the first end."""
    stages = [training("a", seconds=10), training("b", seconds=10, compile_class="B")]
    scheduler = Scheduler(plan_of(*stages), (), ["w"])
    running = scheduler.next("w", 0)
    assert scheduler.remaining_seconds(2) == 18
    assert scheduler.remaining_seconds(2, {running: 30.0}) == 28 + 30
    assert scheduler.remaining_seconds(20) < 40  # no report: a tenth more, and the next


def test_what_was_measured_before_on_this_machine_is_where_estimates_start():
    stages = [training(f"x{number}", seconds=10) for number in range(3)]
    measured = {stages[0].id: 40.0}
    scheduler = Scheduler(plan_of(*stages), {stages[0].id}, ["w"], measured=measured)
    assert scheduler.remaining_seconds(0) == 80


def test_slow_machine_is_noticed_for_classes_that_were_not_measured_yet():
    first, second = training("a", seconds=20), training("b", seconds=10, compile_class="B")
    scheduler = Scheduler(plan_of(first, second), (), ["w"])
    scheduler.finished(scheduler.next("w", 0), 60)
    assert scheduler.seconds(second.id) == 30


def test_inputs_come_before_what_needs_them_through_every_level():
    stages = []
    for seed in (1, 2):
        parts = [pretraining("encoder", seed, 5.0), pretraining("language", seed, 9.0)]
        trainings = [after(name, parts, seed) for name in ("a", "b")]
        stages += [*parts, *trainings, *(evaluation(one) for one in trainings)]
    order = run_alone(plan_of(*stages))
    assert order[:2] == ["language1", "encoder1"]
    assert {tuple(order[2:4]), tuple(order[4:6])} == {("a1", "a1/t"), ("b1", "b1/t")}
    assert [one[-1] if "/" not in one else one[-3] for one in order] == ["1"] * 6 + ["2"] * 6


def test_what_a_long_way_waits_for_comes_before_what_ends_a_trial():
    encoder = pretraining("encoder", seconds=5.0)
    chain = [encoder, after("a", [encoder], seconds=20.0)]
    order = run_alone(plan_of(training("alone", seconds=15.0), *chain))
    assert order == ["encoder1", "a1", "alone1"]


def test_trainings_that_share_a_part_are_not_tied_to_the_worker_that_made_it():
    encoder = pretraining("encoder")
    trainings = [after(name, [encoder]) for name in ("a", "b")]
    plan = plan_of(encoder, *trainings)
    scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=4.0)
    assert scheduler.next("w", 0) == encoder.id
    assert scheduler.next("v", 1.0) is None  # nothing is ready
    scheduler.finished(encoder.id, 10)
    started = {scheduler.next("v", 0), scheduler.next("w", 0.0)}
    assert started == {one.id for one in trainings}


def test_parts_of_one_training_are_made_side_by_side():
    parts = [pretraining("encoder"), pretraining("language")]
    scheduler = Scheduler(plan_of(*parts, after("a", parts)), (), ["w", "v"], compile_seconds=4.0)
    assert {scheduler.next("w", 0), scheduler.next("v", 0.0)} == {p.id for p in parts}
    scheduler.finished(parts[0].id, 10)
    assert not scheduler.in_state("ready")
    scheduler.finished(parts[1].id, 10)
    assert len(scheduler.in_state("ready")) == 1


def test_a_part_that_is_given_up_blocks_what_waits_for_it_and_nothing_else():
    encoder = pretraining("encoder")
    trainings = [after(name, [encoder]) for name in ("a", "b")]
    scores = [evaluation(one) for one in trainings]
    scheduler = Scheduler(plan_of(encoder, *trainings, *scores), [trainings[0].id], ["w"])
    scheduler.next("w", 0)
    scheduler.failed(encoder.id, again=False)
    assert set(scheduler.in_state("blocked")) == {trainings[1].id, scores[1].id}
    assert scheduler.next("w", 0) == scores[0].id  # its training was there already


# -- against the policy said plainly ---------------------------------------------------------------


def random_plan(draw: random.Random, most_arms=5, most_seeds=3) -> Plan:
    """Trials of one or two levels with evaluations; arms share parts and classes at random."""
    stages = {}
    seeds = range(1, draw.randint(1, most_seeds) + 1)
    classes = draw.randint(1, 4)
    arms = [
        (draw.choice([1.0, 5.0, 20.0]), f"C{draw.randrange(classes)}", draw.randrange(3))
        for _ in range(draw.randint(1, most_arms))
    ]
    for seed in seeds:
        parts = [pretraining(f"part {number}", seed, 3.0 + number) for number in range(2)]
        for number, (seconds, name, needs) in enumerate(arms):
            made = parts[:needs]
            inputs = {f"input {place}": part.id for place, part in enumerate(made)}
            train = a_stage(
                "train", {"arm": number}, seed, inputs, label=f"arm {number} seed {seed}",
                seconds=seconds, compile_class=name,
            )  # fmt: skip
            scores = [
                evaluation(train, f"t{task}", draw.choice([0.5, 8.0]), f"E{task}")
                for task in range(draw.randint(0, 3))
            ]
            stages |= {one.id: one for one in (*made, train, *scores)}
    shuffled = draw.sample(sorted(stages), len(stages))
    return plan_of(*(stages[one] for one in shuffled), seeds=tuple(seeds))


@pytest.mark.parametrize("number", range(150))
def test_every_decision_is_the_plain_policys(number):
    """Whatever happens, and in whatever order; how long anything takes is anybody's guess."""
    draw = random.Random(number)
    plan = random_plan(draw)
    done = {one for one, stage in plan.stages.items() if not stage.inputs and draw.random() < 0.1}
    workers = [f"w{number}" for number in range(draw.randint(1, 4))]
    cost = draw.choice([0.5, 4.0, 30.0])
    crews = (
        {one: draw.choice(["", "big"]) for one in sorted(plan.stages)} if number % 3 == 0 else {}
    )
    scheduler = Scheduler(plan, done, workers, compile_seconds=cost, crews=crews)
    plain = PlainScheduler(plan, done, workers, cost, crews)
    now, elsewhere = 0.0, []
    while not plain.complete:
        now += draw.random() * 5
        if crews:
            a_worker_comes_or_goes(draw, workers, scheduler, plain)
        for worker in draw.sample(workers, len(workers)):
            if worker in plain.running:
                continue
            plain.look(now)
            own, chosen = plain.own(worker), scheduler.next(worker, now)
            if own is not None:
                assert chosen == own
            elif len(plain.mates(worker)) <= 2:  # the other is the one that is furthest behind
                assert chosen == plain.take_over(worker)
            elif chosen is not None:
                compiled = plan.stages[chosen].compile_class in plain.held[worker]
                ready = plain.ready_for(worker)
                assert chosen in ready
                before = [one for one in ready if plain.keys[one] < plain.keys[chosen]]
                free = min(map(plain.until_free, plain.holders(chosen)))
                assert free + sum(map(plain.tail, before)) > (0.0 if compiled else cost)
            if chosen is not None:
                plain.start(worker, chosen)
        both = (scheduler, plain)
        assert scheduler.in_state("ready") == plain.ready()
        assert scheduler.running == plain.running
        busy = sorted(plain.running)
        if busy and draw.random() < 0.9:
            worker = draw.choice(busy)
            stage_id, what = plain.running[worker], draw.random()
            if what < 0.75:
                seconds = draw.choice([None, draw.random() * 20])
                for one in both:
                    one.finished(stage_id, seconds)
            elif what < 0.87:
                again = draw.random() < 0.8
                assert len({one.failed(stage_id, again=again) for one in both}) == 1
                if draw.random() < 0.3:
                    for one in both:
                        one.forget(worker)
            else:
                for one in both:
                    one.elsewhere(stage_id) if what < 0.94 else one.put_back(stage_id)
                elsewhere += [stage_id] if what < 0.94 else []
        elif elsewhere:
            stage_id, there = elsewhere.pop(), draw.random() < 0.5
            for one in both:
                one.finished(stage_id) if there else one.put_back(stage_id)
        for stage_id in plan.stages:
            assert scheduler.seconds(stage_id) == pytest.approx(plain.seconds(stage_id))
        assert scheduler.complete == plain.complete
        for name, crew in scheduler.crews.items():
            ready = [one for one in plain.ready() if plain.crew(one) == name]
            assert (crew.ready, list(crew.workers)) == (
                len(ready), [one for one in plain.workers if plain.crew_of[one] == name],
            )  # fmt: skip


def a_worker_comes_or_goes(draw, workers, scheduler, plain):
    """Also the last of a crew, for which others come later."""
    idle = [one for one in workers if one not in plain.running]
    if idle and draw.random() < 0.1:
        gone = draw.choice(idle)
        workers.remove(gone)
        for one in (scheduler, plain):
            one.dismiss(gone)
    if len(workers) < 4 and draw.random() < 0.3:
        new = min({"v0", "v1", "v2", "v3"} - set(workers))
        workers.append(new)
        crew = draw.choice(["", "big"])
        for one in (scheduler, plain):
            one.join(new, crew)


def makespan(scheduler, plan, workers, cost) -> float:
    """When everything is done: stages take a third more or less than planned, and compile."""
    draw, held, ends, now = random.Random(0), set(), [], 0.0
    takes = {
        one: plan.stages[one].seconds * draw.uniform(0.67, 1.33) for one in sorted(plan.stages)
    }
    while not scheduler.complete:
        for worker in workers:
            if worker not in scheduler.running:
                stage_id = scheduler.next(worker, now)
                if stage_id is not None:
                    place = worker, plan.stages[stage_id].compile_class
                    seconds = takes[stage_id] + (0.0 if place in held else cost)
                    held.add(place)
                    heappush(ends, (now + seconds, stage_id))
        now, stage_id = heappop(ends)
        scheduler.finished(stage_id, takes[stage_id])
    return now


def test_helping_who_is_furthest_behind_ends_no_later_than_looking_at_everything():
    ratios = []
    for number in range(20):
        draw = random.Random(number)
        plan, cost = random_plan(draw, most_arms=12, most_seeds=4), draw.choice([0.5, 4.0])
        workers = [f"w{number}" for number in range(draw.randint(3, 8))]
        ours = makespan(Scheduler(plan, (), workers, cost), plan, workers, cost)
        ratios.append(ours / makespan(PlainScheduler(plan, (), workers, cost), plan, workers, cost))
    assert statistics.mean(ratios) < 1.02
    assert max(ratios) < 1.25


def test_ten_times_the_stages_take_about_ten_times_as_long():
    def seconds(stages):
        made = [training(f"x{n}", n % 3, compile_class=f"C{n % 20}") for n in range(stages)]
        plan, workers = plan_of(*made, seeds=(0, 1, 2)), [f"w{n}" for n in range(300)]
        started = time.process_time()
        makespan(Scheduler(plan, (), workers), plan, workers, 4.0)
        return time.process_time() - started

    assert seconds(20_000) < 30 * max(seconds(2_000), 0.05)  # with squares: a hundred times


def test_a_worker_does_its_crews_stages_alone_and_evaluations_follow_within_it():
    train, other = training("a"), training("b", compile_class="B")
    here, elsewhere = evaluation(train, "here"), evaluation(train, "elsewhere")
    crews = {train.id: "big", here.id: "big"}
    scheduler = Scheduler(plan_of(train, other, here, elsewhere), (), ["small"], crews=crews)
    assert scheduler.next("small", 0) == other.id
    scheduler.finished(other.id, 10)
    assert scheduler.next("small", 1) is None
    assert scheduler.remaining_seconds(1) >= 12  # though nobody is there for most of it
    scheduler.join("large", "big")
    assert scheduler.next("large", 2) == train.id
    scheduler.finished(train.id, 10)
    scheduler.join("large 2", "big")
    assert scheduler.next("large 2", 12) is None  # it follows on the one that trained
    assert scheduler.next("small", 12) == elsewhere.id
    assert scheduler.next("large", 12) == here.id


def test_what_waited_for_a_worker_that_is_ended_waits_for_the_others():
    train = training("a")
    test = evaluation(train)
    scheduler = Scheduler(plan_of(train, test), (), ["w", "v"])
    assert scheduler.next("w", 0) == train.id
    scheduler.finished(train.id, 1)
    scheduler.dismiss("w")
    assert scheduler.next("v", 1) == test.id


def test_an_estimate_for_very_many_stages_is_near_the_one_that_hands_them_out(monkeypatch):
    stages = [training(f"x{number}", compile_class=f"C{number % 7}") for number in range(400)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v", "u"])
    exact = scheduler.remaining_seconds(0.0)
    monkeypatch.setattr(module, "MOST_HANDED_OUT", 100)
    assert scheduler.remaining_seconds(0.0) == pytest.approx(exact, rel=0.02)
