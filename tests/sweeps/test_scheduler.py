"""Decisions of the scheduler, without Ray and without a clock."""

from __future__ import annotations

from noop_stage import a_plan, a_stage

from ablations.plan import Plan
from sweeps.scheduler import Scheduler

NO_ONE = {}


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
        "evaluate", {"task": task}, of.seed, {"model": of.id}, label=f"{of.label}/{task}",
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
    return None if stage_id is None else plan.stages[stage_id].label


def run_alone(plan, **options):
    """The order in which one worker does everything."""
    scheduler = Scheduler(plan, (), ["w"], **options)
    order = []
    while not scheduler.complete:
        stage_id = scheduler.next("w", NO_ONE)
        order.append(plan.stages[stage_id].label)
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
    first, second = scheduler.next("w", NO_ONE), scheduler.next("v", {"w": 0})
    assert {first, second} == {a1.id, b1.id}
    scheduler.finished(second, 10)
    assert plan.stages[scheduler.next("v", {"w": 5})].compile_class == (
        plan.stages[second].compile_class
    )
    scheduler.finished(first, 10)
    assert plan.stages[scheduler.next("w", {"v": 5})].compile_class == (
        plan.stages[first].compile_class
    )


def test_class_is_taken_over_only_if_waiting_costs_more_than_compiling():
    running, waiting = training("one"), training("two")
    for compile_seconds, expected in ((4.0, "two1"), (30.0, None)):
        plan = plan_of(running, waiting)
        scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=compile_seconds)
        assert scheduler.next("w", NO_ONE) in {running.id, waiting.id}
        taken = scheduler.next("v", {"w": 1.0})
        assert (taken is None) == (expected is None)


def test_nearly_finished_home_keeps_its_class_but_not_all_of_a_long_queue():
    stages = [training(f"x{number}") for number in range(3)]
    plan = plan_of(*stages)
    scheduler = Scheduler(plan, (), ["w", "v"], compile_seconds=4.0)
    order = [one for one, _ in sorted(((s.id, s) for s in stages), key=lambda p: p[0])]
    assert scheduler.next("w", NO_ONE) == order[0]
    # The home is free in 1 s and then takes the second; the third would wait 11 s.
    assert scheduler.next("v", {"w": 9.0}) == order[2]


def test_plan_that_was_too_hopeful_does_not_keep_workers_idle():
    stages = [training(f"x{number}", seconds=0.1) for number in range(3)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"], compile_seconds=4.0)
    scheduler.next("w", NO_ONE)
    assert scheduler.next("v", {"w": 0.05}) is None
    assert scheduler.next("v", {"w": 30.0}) is not None


def test_evaluations_stay_with_the_worker_that_trained():
    train = training("a")
    tests = [evaluation(train, name, compile_class=name) for name in ("t", "u")]
    scheduler = Scheduler(plan_of(train, *tests), (), ["w", "v"], compile_seconds=4.0)
    scheduler.next("w", NO_ONE)
    assert scheduler.next("v", {"w": 1.0}) is None  # nothing is ready
    scheduler.finished(train.id, 10)
    assert scheduler.next("v", NO_ONE) is None  # a second of work is not worth compiling
    first = scheduler.next("w", NO_ONE)
    assert first in {one.id for one in tests}
    assert scheduler.next("v", {"w": 0.5}) is None


def test_finished_stages_are_not_offered_again():
    train = training("a")
    test = evaluation(train)
    scheduler = Scheduler(plan_of(train, test), {train.id}, ["w"])
    assert scheduler.next("w", NO_ONE) == test.id
    scheduler.finished(test.id)
    assert scheduler.complete


def test_failing_stage_is_tried_three_times_then_blocks_what_needs_it():
    bad, good = training("bad", seconds=20), training("good")
    plan = plan_of(bad, evaluation(bad), good, evaluation(good))
    scheduler = Scheduler(plan, (), ["w"])
    for again in (True, True, False):
        assert scheduler.next("w", NO_ONE) == bad.id
        assert scheduler.failed(bad.id) is again
    assert scheduler.next("w", NO_ONE) == good.id
    scheduler.finished(good.id, 1)
    scheduler.finished(scheduler.next("w", NO_ONE), 1)
    assert scheduler.complete
    assert scheduler.in_state("failed") == [bad.id]
    assert len(scheduler.in_state("blocked")) == 1


def test_mistake_of_the_user_is_not_tried_again():
    bad = training("bad")
    scheduler = Scheduler(plan_of(bad), (), ["w"])
    scheduler.next("w", NO_ONE)
    assert scheduler.failed(bad.id, again=False) is False


def test_stage_of_another_run_waits_and_comes_back():
    stage = training("a")
    test = evaluation(stage)
    scheduler = Scheduler(plan_of(stage, test), (), ["w"])
    scheduler.next("w", NO_ONE)
    scheduler.elsewhere(stage.id)
    assert scheduler.next("w", NO_ONE) is None
    assert not scheduler.complete
    scheduler.put_back(stage.id)
    assert scheduler.next("w", NO_ONE) == stage.id
    scheduler.elsewhere(stage.id)
    scheduler.finished(stage.id)
    assert scheduler.next("w", NO_ONE) == test.id


def test_remaining_time_learns_from_what_was_measured():
    stages = [training(f"x{number}", seconds=10) for number in range(4)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"])
    assert scheduler.remaining_seconds(NO_ONE) == 20
    scheduler.finished(scheduler.next("w", NO_ONE), 100)
    assert scheduler.remaining_seconds(NO_ONE) == 200  # three on two workers: two, then one
    scheduler.next("w", NO_ONE)
    assert scheduler.remaining_seconds({"w": 40}) == 60 + 100


def test_remaining_time_counts_compilation_once_for_each_worker_and_what_waits_for_inputs():
    parts = [pretraining("encoder", seconds=20.0), pretraining("language", seconds=8.0)]
    last = after("a", parts)
    test = evaluation(last, seconds=3.0)
    stages = [stage.model_copy(update={"compile_seconds": 5.0}) for stage in (*parts, last, test)]
    scheduler = Scheduler(plan_of(*stages), (), ["w", "v"])
    assert scheduler.remaining_seconds(NO_ONE) == (20 + 5) + (10 + 5) + (3 + 5)
    more = [stage.model_copy(update={"compile_seconds": 5.0}) for stage in map(training, "abc")]
    assert Scheduler(plan_of(*more), (), ["w"]).remaining_seconds(NO_ONE) == 5 + 3 * 10


def test_remaining_time_follows_the_reports_of_running_stages_and_does_not_climb_without_end():
    """On a machine three times as slow as planned the first reports tell, not the first end."""
    stages = [training("a", seconds=10), training("b", seconds=10, compile_class="B")]
    scheduler = Scheduler(plan_of(*stages), (), ["w"])
    running = scheduler.next("w", NO_ONE)
    assert scheduler.remaining_seconds({"w": 2}) == 18
    assert scheduler.remaining_seconds({"w": 2}, {running: 30.0}) == 28 + 30
    assert scheduler.remaining_seconds({"w": 20}) < 40  # no report: a tenth more, and the next


def test_what_was_measured_before_on_this_machine_is_where_estimates_start():
    stages = [training(f"x{number}", seconds=10) for number in range(3)]
    measured = {stages[0].id: 40.0}
    scheduler = Scheduler(plan_of(*stages), {stages[0].id}, ["w"], measured=measured)
    assert scheduler.remaining_seconds(NO_ONE) == 80


def test_slow_machine_is_noticed_for_classes_that_were_not_measured_yet():
    first, second = training("a", seconds=20), training("b", seconds=10, compile_class="B")
    scheduler = Scheduler(plan_of(first, second), (), ["w"])
    scheduler.finished(scheduler.next("w", NO_ONE), 60)
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
    assert scheduler.next("w", NO_ONE) == encoder.id
    assert scheduler.next("v", {"w": 1.0}) is None  # nothing is ready
    scheduler.finished(encoder.id, 10)
    started = {scheduler.next("v", NO_ONE), scheduler.next("w", {"v": 0.0})}
    assert started == {one.id for one in trainings}


def test_parts_of_one_training_are_made_side_by_side():
    parts = [pretraining("encoder"), pretraining("language")]
    scheduler = Scheduler(plan_of(*parts, after("a", parts)), (), ["w", "v"], compile_seconds=4.0)
    assert {scheduler.next("w", NO_ONE), scheduler.next("v", {"w": 0.0})} == {p.id for p in parts}
    scheduler.finished(parts[0].id, 10)
    assert not scheduler.in_state("ready")
    scheduler.finished(parts[1].id, 10)
    assert len(scheduler.in_state("ready")) == 1


def test_a_part_that_is_given_up_blocks_what_waits_for_it_and_nothing_else():
    encoder = pretraining("encoder")
    trainings = [after(name, [encoder]) for name in ("a", "b")]
    scores = [evaluation(one) for one in trainings]
    scheduler = Scheduler(plan_of(encoder, *trainings, *scores), [trainings[0].id], ["w"])
    scheduler.next("w", NO_ONE)
    scheduler.failed(encoder.id, again=False)
    assert set(scheduler.in_state("blocked")) == {trainings[1].id, scores[1].id}
    assert scheduler.next("w", NO_ONE) == scores[0].id  # its training was there already
