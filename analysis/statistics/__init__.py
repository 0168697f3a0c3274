"""What can be learnt from a score table beyond its claims; each module is one method.

    per_seed            one number per seed: what every method starts from
    paired_effects      effects, simple effects, arms against one; what could have been seen
    interactions        differences of differences
    importance          analysis of variance and shares, or what is local to the base
    trends              slopes, curvature, order; scores over shots
    equivalence         whether a change hardly matters
    scaling             power law and offset, curvature first, held-out prediction
    learning_rate       the law of the best rate against model size
    agreement           whether two stages, scales or tasks rank arms alike
    pareto              score against cost, with separation
    items               two checkpoints on the same items: flips, McNemar's exact test
    seeds_and_items     seed noise and item noise apart

Each takes a `ScoreTable` (the last two tables of examples) and gives a DataFrame whose columns its
docstring names, with their units. All of it describes: p values are uncorrected and no verdicts,
which claims alone have (`ablations.deciding`).
"""
