"""The training child's progress events as metrics: which figure of which event goes where."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from monitoring import metrics

_STEP_FIGURES = {
    "step": metrics.TRAIN_STEP,
    "total": metrics.TRAIN_STEPS,
    "epoch": metrics.TRAIN_EPOCH,
    "loss": metrics.TRAIN_LOSS,
    "lr": metrics.TRAIN_LEARNING_RATE,
    "grad_norm": metrics.TRAIN_GRAD_NORM,
    "tokens": metrics.TRAIN_TOKENS,
    "smoothed_loss": metrics.TRAIN_SMOOTHED_LOSS,
    "data_wait_s": metrics.TRAIN_DATA_WAIT_SECONDS,
    "micro_batch": metrics.TRAIN_MICRO_BATCH,
    "flops": metrics.TRAIN_FLOPS,
    "mfu": metrics.TRAIN_MFU,
    "tokens_per_s": metrics.TRAIN_TOKENS_PER_SECOND,
    "eta_s": metrics.TRAIN_ETA_SECONDS,
    "peak_bytes": metrics.TRAIN_PEAK_BYTES,
}
_PLAN_FIGURES = {
    "micro_batch": metrics.TRAIN_MICRO_BATCH,
    "checkpointed_layers": metrics.TRAIN_CHECKPOINTED_LAYERS,
    "planned_bytes": metrics.TRAIN_PLANNED_BYTES,
}


def forget_child() -> None:
    """Drop the live figures: the child is gone, and its last loss is nobody's."""
    others = (metrics.TRAIN_EVAL_LOSS, metrics.TRAIN_PROGRESS_TIMESTAMP)
    for gauge in (*_STEP_FIGURES.values(), *_PLAN_FIGURES.values(), *others):
        gauge.set(metrics.UNKNOWN)
    metrics.TRAIN_PHASE.clear()


def record_event(event: Mapping[str, Any]) -> None:
    """Take one progress event of the child; those without a figure (and unknown ones) change nothing."""
    handler = _HANDLERS.get(str(event.get("event")))
    if handler is not None:
        handler(event)


def _take_phase(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_PHASE.clear()
    metrics.TRAIN_PHASE.labels(str(event["phase"])).set(1)
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_step(event: Mapping[str, Any]) -> None:
    _set(_STEP_FIGURES, event)
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_plan(event: Mapping[str, Any]) -> None:
    _set(_PLAN_FIGURES, event)


def _set(gauges: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    for name, gauge in gauges.items():
        if isinstance(event.get(name), int | float):
            gauge.set(event[name])


def _take_first_step(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_FIRST_STEP_SECONDS.set(event["seconds"])


def _take_eval(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_EVAL_LOSS.set(event["loss"])
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_checkpoint(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_CHECKPOINT_SECONDS.observe(event["seconds"])
    metrics.TRAIN_CHECKPOINT_BYTES.set(event["bytes"])
    metrics.TRAIN_CHECKPOINT_TIMESTAMP.set(time.time())


def _take_progress(_: Mapping[str, Any]) -> None:
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_attention(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_ATTENTION_INFO.clear()
    metrics.TRAIN_ATTENTION_INFO.labels(str(event["attention"])).set(1)


def _take_note(event: Mapping[str, Any]) -> None:
    counters = {"out_of_memory": metrics.TRAIN_OOM_EVENTS, "checkpoint_failed": metrics.TRAIN_CHECKPOINT_FAILURES}
    counter = counters.get(str(event.get("note")))
    if counter is not None:
        counter.inc()


_HANDLERS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "phase": _take_phase,
    "plan": _take_plan,
    "step": _take_step,
    "first_step": _take_first_step,
    "eval": _take_eval,
    "checkpoint": _take_checkpoint,
    "note": _take_note,
    "attention": _take_attention,
    "progress": _take_progress,
}
