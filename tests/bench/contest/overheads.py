"""What of a run is not arithmetic: our whole run and our plain one beside a bare loop, in turns.

- `trainer_ms_per_step`, `trainer_share`: a step of ours without evaluation or checkpoint, less one of the bare loop.
- `logging_share`: events and metrics, of the whole run's time.
- `data_wait_share`: waiting for batches, of the whole run's time.
- `evaluation_flops_share`: operations of all evaluations, of those of the training; `evaluation_share`: of the time.
- `checkpoint_s`, `checkpoint_share`: of one checkpoint, and of the default interval between two.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from daemon.config import TrainingSettings
from daemon.job import MEMBERS, Result
from daemon.shapes import local_shape
from daemon.training.rows import read_items
from daemon.training.trainer import PackedTrainer
from tests.bench.contest.child import compete
from tests.bench.contest.flops import model_flops
from tests.bench.contest.shapes import Shape
from tests.bench.contest.stage import HELD_OUT, OURS, read_job, write_job
from tests.bench.contest.turns import Contestant, Turns

BARE, PLAIN, WHOLE = "bare", "ours_plain", "ours_whole"
CHECKPOINT_INTERVAL_S = 2.0  # often enough to measure some; the first one comes early, for a short run ends before


def measure_overheads(stage: Path, shape: Shape, tell: Callable[[str], None]) -> dict[str, float]:
    """Return the shares; the stage is that of the contest before."""
    job, members = read_job(stage), list(read_items(stage / OURS / MEMBERS))
    to_the_end = {"checkpoint_interval_s": CHECKPOINT_INTERVAL_S, "patience": 1000}
    often = job.settings.model_copy(update=to_the_end)
    write_job(stage / PLAIN, job, members)
    write_job(stage / WHOLE, job.model_copy(update={"settings": often}), members, read_items(stage / HELD_OUT))
    bare, plain, whole = compete((BARE, PLAIN, WHOLE), stage, shape, tell)
    bare_s, plain_s = _step_seconds(bare), _step_seconds(plain)
    result = Result.model_validate_json((stage / WHOLE / "result.json").read_text())
    spent, seconds = whole.last, result.seconds
    model, mean = local_shape(job.settings), result.tokens / result.num_samples
    trained = result.tokens * model_flops(model, job.settings.lora_rank, mean)
    checkpoint_s = spent["checkpoint_s"] / spent["checkpoints"]
    return {
        "bare_ms_per_step": round(1e3 * bare_s, 3),
        "trainer_ms_per_step": round(1e3 * (plain_s - bare_s), 3),
        "trainer_share": round(1 - bare_s / plain_s, 5),
        "logging_share": round(spent["log_s"] / seconds, 5),
        "data_wait_share": round(spent["wait_s"] / seconds, 5),
        "evaluation_flops_share": round(spent["evaluated_tokens"] * model.forward_flops(mean) / trained, 5),
        "evaluation_share": round(spent["evaluate_s"] / seconds, 5),
        "checkpoint_s": round(checkpoint_s, 4),
        "checkpoint_share": round(checkpoint_s / TrainingSettings().checkpoint_interval_s, 8),
    }


def _step_seconds(contestant: Contestant) -> float:
    return median(turn["seconds"] / turn["steps"] for turn in contestant.turns)


def watch_trainer(turns: Turns) -> None:
    """In the child: add up what the trainer's own methods take, for `Turns.finish` to tell."""
    spent = turns.noted
    spent |= dict.fromkeys(("log_s", "wait_s", "evaluate_s", "checkpoint_s", "checkpoints", "evaluated_tokens"), 0.0)

    def count(trainer: Any) -> None:
        spent["evaluated_tokens"] += trainer.validation.num_tokens

    def count_checkpoint(_trainer: Any) -> None:
        spent["checkpoints"] += 1

    def save_early(trainer: Any) -> None:
        if not spent["checkpoints"]:
            trainer.saved_at = -math.inf  # the next step ends with one

    _time("log", "log_s", spent, save_early)
    _time("get_batch_samples", "wait_s", spent)
    _time("evaluate", "evaluate_s", spent, count)
    _time("_save_checkpoint", "checkpoint_s", spent, count_checkpoint)


def _time(
    method: str, key: str, spent: dict[str, float], on_call: Callable[[Any], None] = lambda _trainer: None
) -> None:
    inner = getattr(PackedTrainer, method)

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        on_call(self)
        waited, started = spent["turns_s"], time.perf_counter()
        try:
            return inner(self, *args, **kwargs)
        finally:
            spent[key] += time.perf_counter() - started - (spent["turns_s"] - waited)

    setattr(PackedTrainer, method, timed)
