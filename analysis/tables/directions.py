"""Which way a metric is better, by its name, where there is no doubt at all.

A wrong guess turns best into worst. So a name is known only where its last telling word is
(`mybench_accuracy`; of `loss_scale` and `accuracy_loss` nobody knows), and where no word turns
another round (`neg_loss`, `1-acc`). Of all other names nobody knows, until somebody says
`--lower NAME` or `--higher NAME`.
"""

from __future__ import annotations

import itertools
import re

from ablations.workload import Goal


def _each(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LOWER = _each(
    "loss perplexity ppl nll error err wer cer mse rmse mae mape bpb bpc fid kid eer brier ece "
    "latency"
)
_HIGHER = _each(
    "acc accuracy f1 precision recall bleu rouge rougel rouge1 rouge2 cider meteor spice auc auroc "
    "auprc miou iou dice top1 top5 em mrr ndcg psnr ssim anls chrf bertscore clipscore "
    "throughput"
)
# What each of two words is by itself would mislead.
_PHRASES: dict[tuple[str, str], Goal] = {
    ("exact", "match"): "maximise",
    ("win", "rate"): "maximise",
    ("pass", "rate"): "maximise",
    ("success", "rate"): "maximise",
    ("error", "rate"): "minimise",
    ("cross", "entropy"): "minimise",
    ("log", "likelihood"): "maximise",
    ("top", "1"): "maximise",
    ("top", "5"): "maximise",
}
# Words after the telling one that change nothing.
_TRAILING = _each(
    "val valid validation test eval dev train training final last mean avg average macro micro "
    "weighted overall total norm normalized none strict flexible extract top id ood en zh"
)
_TURNING = re.compile(
    r"neg\w*|minus|inv\w*|reciprocal|drop\w*|gap|delta|diff\w*|reduc\w*|improv\w*|gain\w*"
    r"|decrease|increase|degrad\w*|vs|versus|rel\w*|ratio|weight|weights|scale\w*|coef\w*|std\w*"
    r"|sd|var\w*|se|ci|stderr|un\w+|non|no|not|anti|dis\w+|worst|correct\w*|penalty|reg\w*|recovery"
    r"|threshold|target|budget|cost|minimi\w*|maximi\w*|regret|rank\w*|margin|bound|lr|aux\w*|false"
)
# Shares of a whole: 0.71 and 71 of one of these are two units.
_SHARES = _each("acc accuracy f1 precision recall em top1 top5 auc auroc iou miou")


def by_name(metric: str) -> Goal | None:
    """Which way it is better; None where the name leaves any doubt."""
    if re.search(r"(?:^|[^\d.])1\s*[-−]", metric):
        return None
    parts = [words for part in re.split(r"[/|,:]", metric) if (words := _words(part))]
    if any(_TURNING.fullmatch(word) for words in parts for word in words):
        return None
    found = {goal for words in parts if (goal := _head(words)) is not None}
    said = {goal for words in parts for word in words if (goal := _word(word)) is not None}
    for words in parts:
        for pair in itertools.pairwise(words):
            said -= {_word(one) for one in pair} if pair in _PHRASES else set()
    return found.pop() if len(found) == 1 and said <= found else None


def _head(words: list[str]) -> Goal | None:
    """What the last word that is not trailing tells, or the last two."""
    left = list(words)
    while left:
        if len(left) > 1 and (goal := _PHRASES.get((left[-2], left[-1]))) is not None:
            return goal
        if (goal := _word(left[-1])) is not None:
            return goal
        if left[-1] not in _TRAILING and not left[-1].isdecimal():
            return None
        left.pop()
    return None


def _word(word: str) -> Goal | None:
    if word in _LOWER:
        return "minimise"
    return "maximise" if word in _HIGHER else None


def is_share(metric: str) -> bool:
    """Whether it is a share of a whole, which is written 0.71 or 71 %."""
    return by_name(metric) == "maximise" and not _SHARES.isdisjoint(_words(metric))


def _words(metric: str) -> list[str]:
    """`topAcc@5` → top, acc, 5."""
    spaced = re.sub(r"([a-z0-9])([A-Z][a-z])", r"\1 \2", metric)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.casefold()) if word]
