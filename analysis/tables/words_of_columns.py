"""What columns are usually called, and what that says of them."""

from __future__ import annotations

import re

from ablations.workload import Goal
from analysis.tables.directions import by_name
from analysis.tables.raw import Hint


def _each(words: str) -> tuple[str, ...]:
    return tuple(words.split())


# Before a name: where trackers say what a column is.
_PREFIX = re.compile(
    r"(?P<setting>config|params?|parameters|hparams?|args|cfg|user_attrs)[./_]"
    r"|(?P<measurement>summary|metrics?)[./]",
    re.IGNORECASE,
)
ARM = _each(
    "arm method variant approach system recipe treatment ablation model model_name method_name "
    "algorithm algo experiment exp experiment_name exp_name group setup configuration"
)
SEED = _each(
    "seed random_seed random_state rng rng_seed train_seed training_seed model_seed global_seed "
    "manual_seed randomseed rng_state seeds run_seed replicate rep repeat repetition"
)
NO_SEED = _each("fold cv_fold kfold task dataset benchmark item step epoch checkpoint")
TASK = _each("task tasks benchmark eval_task eval_dataset evaluation dataset test_set eval_set")
SPLIT = ("split", "eval_split")
METRIC = _each("metric metric_name measure measurement key")
VALUE = _each("value score result metric_value")
STEP = _each(
    "step steps_done global_step trainer_global_step iteration iter epoch training_step checkpoint "
    "train_step"
)
ITEM = _each(
    "item item_id question_id example_id sample_id image_id doc_id instance_id example question"
)
TIME = _each(
    "created created_at start_time started started_at timestamp date datetime time_stamp "
    "wall_time datetime_start starttime"
)
RUN = _each("name run run_name run_id id uuid trial_id runname displayname display_name job_id")
STATE = ("state", "status")
STATES = {
    "finished": True,
    "complete": True,
    "completed": True,
    "done": True,
    "success": True,
    "succeeded": True,
    "ok": True,
    "crashed": False,
    "failed": False,
    "fail": False,
    "killed": False,
    "running": False,
    "pruned": False,
    "preempted": False,
    "preempting": False,
    "scheduled": False,
    "waiting": False,
    "pending": False,
    "canceled": False,
    "cancelled": False,
    "error": False,
    "oom": False,
    "timeout": False,
}
SETTING = _each(
    "lr learning_rate peak_lr batch_size bs epochs steps max_steps num_steps warmup warmup_steps "
    "weight_decay wd dropout depth width layers n_layers num_layers hidden hidden_size d_model dim "
    "heads n_heads num_heads patch patch_size image_size resolution res tokens n_tokens "
    "image_tokens shots n_shots temperature beta beta1 beta2 momentum optimizer scheduler schedule "
    "init augmentation aug pretrained frozen freeze connector encoder decoder backbone arch "
    "architecture size scale data_mix mixture ratio rank lora_rank alpha lora_alpha grad_clip "
    "ema label_smoothing mixup"
)
# Who, where and when; never what is compared.
ABOUT = _each(
    "notes note comment comments description user author host hostname node machine gpu gpus "
    "gpu_type gpu_count device cuda url link path dir output_dir outdir out_dir save_dir log_dir "
    "logdir logging_dir checkpoint_path ckpt ckpt_path file filename git commit sha git_sha "
    "git_commit cmd command tags sweep sweep_id project entity version wandb run_time runtime "
    "duration elapsed wall_clock seconds updated updated_at end_time ended finished_at "
    "heartbeat_at github port pid rank local_rank world_size num_workers created_by "
    "datetime_complete number artifact_uri experiment_id lifecycle_stage system_attrs "
    "relative_time_process exit_code job_type hours minutes time"
)


def split_prefix(name: str) -> tuple[str, Hint | None]:
    """A name without what its tracker puts before it, and what that says."""
    found = _PREFIX.match(name)
    if found is None or found.end() == len(name):
        return name, None
    if name[found.end() - 1] == "_" and not name.lower().startswith(("params_", "user_attrs_")):
        return name, None
    return name[found.end() :], "setting" if found["setting"] else "measurement"


def key(name: str) -> str:
    """A name as the lists above have it: `config.Random-Seed` is `random_seed`."""
    bare, _ = split_prefix(name)
    spaced = re.sub(r"([a-z0-9])([A-Z][a-z])", r"\1_\2", bare)
    return re.sub(r"[^a-z0-9]+", "_", spaced.casefold()).strip("_")


def is_score(name: str) -> bool:
    """Whether a name is that of something measured."""
    bare, _ = split_prefix(name)
    return (
        direction(name) is not None
        or key(bare) in VALUE
        or bool(
            re.search(r"(?:^|[/_ .-])(?:score|reward|return|loss|acc|accuracy)$", bare.casefold())
        )
    )


def direction(name: str) -> Goal | None:
    """Which way a column's numbers are better, by its name."""
    return by_name(split_prefix(name)[0])


def error_of(name: str) -> str | None:
    """Of a standard error the metric that it belongs to: `acc_stderr,none` → `acc,none`."""
    found = re.fullmatch(r"(.+?)[_ /.-](?:stderr|std_err|standard_error|se)(,.*)?", name)
    return found[1] + (found[2] or "") if found else None


def is_spread(name: str) -> bool:
    """Whether a column holds how far numbers spread, and no number of a run."""
    return bool(
        re.search(r"[_ /.-](?:std|sd|stdev|ci|ci95|ci_low|ci_high|var|sem|n)$", name.casefold())
    )
