"""When a run ends before its last step: its loss is lost, or its validation loss no longer falls."""

import math
from statistics import mean, median_high

from daemon.training.child import Failed
from daemon.training.progress import Plan, Progress
from daemon.training.schedule import is_spike

SMOOTHED, FIRST = 10, 3  # the mean loss of the last steps is compared with that of the first ones
# Steps in a row whose float16 gradients overflow: each halves their scale, from 65,536 to less than a tenth.
MOST_SKIPPED = 20
# Of the last validation losses the median counts: a single bad one ends no run, and a single lucky one sets no mark
# that the next ones have to beat. A mean would lag behind a fall for longer, and a run has few evaluations.
SMOOTHED_EVALS = 3


def smooth(progress: Progress, loss: float) -> float:
    """Return the mean training loss of the last steps, this one included."""
    return mean([*progress.last_losses, loss][-SMOOTHED:])


def check_is_number(step: int, loss: float, norm: float) -> None:
    """Raise Failed(nan) where a step's loss or gradient is not a number."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        message = f"step {step}: loss {loss}, gradient norm {norm}; the weights of this run are lost"
        raise Failed("nan", message, data_caused=True)


def count_skipped(progress: Progress, step: int, scale: float) -> str:
    """Count a step that changed no weight, as its gradients overflowed in float16; return it in words.

    Raises:
        Failed: nan, where it is the MOST_SKIPPED-th in a row.
    """
    progress.num_skipped += 1
    progress.skipped_in_a_row += 1
    if progress.skipped_in_a_row == MOST_SKIPPED:
        raise Failed(
            "nan",
            f"step {step}: {MOST_SKIPPED} steps in a row were skipped, as their gradients overflow in float16 though "
            f"they are scaled by no more than {scale:g}: set CODELUPE_COMPUTE_DTYPE=float32, or bfloat16 on an Ampere "
            "or newer, or a smaller learning rate",
        )
    return f"step {step}: its gradients overflow in float16, so it is skipped, and they are scaled by {scale:g} now"


def check_spike(progress: Progress, plan: Plan, step: int, loss: float) -> None:
    """Stop where the last losses are far above the first ones; a single bad step is none, nor is the warm-up.

    Raises:
        Failed: loss_spike, with the figures and what to set.
    """
    progress.last_losses = [*progress.last_losses, loss][-SMOOTHED:]
    smoothed = sum(progress.last_losses) / len(progress.last_losses)
    if progress.first_loss is None:
        progress.first_loss = smoothed if step == FIRST else None
        return
    is_measured = len(progress.last_losses) == SMOOTHED and step > plan.warmup_steps
    if is_measured and is_spike(smoothed, progress.first_loss):
        raise Failed(
            "loss_spike",
            f"step {step}: the last {SMOOTHED} steps have a mean loss of {smoothed:.2f}, the first {FIRST} had "
            f"{progress.first_loss:.2f}: set a smaller CODELUPE_LEARNING_RATE (this run's peak is "
            f"{plan.learning_rate:g}), or look at what this run was given",
            data_caused=True,
        )


def judge(progress: Progress, plan: Plan, step: int, loss: float) -> bool:
    """Record a validation loss, and whether the smoothed one has not really improved `patience` times in a row.

    Returns:
        Whether this loss itself is the lowest: the weights of then are what a run with patience ends with.
    """
    progress.num_evals += 1
    progress.last_eval_step = step
    best = progress.best_loss is None or loss < progress.best_loss
    if best:
        progress.best_loss, progress.best_step = loss, step
    if plan.patience is None:
        return best
    progress.last_eval_losses = [*progress.last_eval_losses, loss][-SMOOTHED_EVALS:]
    smoothed = median_high(progress.last_eval_losses)
    if progress.reference_loss is None or smoothed < progress.reference_loss * (1 - plan.min_improvement):
        progress.reference_loss, progress.evals_without_improvement = smoothed, 0
    else:
        progress.evals_without_improvement += 1
    if progress.evals_without_improvement >= plan.patience and step < plan.num_steps:
        progress.stopped_early = True
    return best
