"""A stand-in for `python -m daemon.training VERB JOB_DIR` without torch: only the model is missing.

Pipe, stop, exit status, error.json, device lock and checkpoints are the real ones. The "weights" are a hash over the
seed, the incumbent's weights and every member in its order, so a run that was stopped, killed and resumed ends with the
same bytes as an undisturbed one, or something was lost. `stand_in.json` in the home steers it (`DEFAULTS`).
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from daemon.files import write_json
from daemon.job import MEMBERS, TEST, EvaluationResult, Item, ItemBits, Job, Result
from daemon.training import __main__ as training
from daemon.training.checkpoints import find_checkpoint, new_checkpoint
from daemon.training.child import Child, Failed, Stopped
from daemon.training.device import hold_device
from daemon.training.folders import new_folder
from schema import failpoints

STEERING = "stand_in.json"
DEFAULTS: dict[str, Any] = {
    "steps": 20,
    "step_s": 0.01,
    "import_s": 0.0,
    "tokenize_s": 0.0,
    "evaluate_s": 0.0,
    "checkpoint_steps": 2,
    # What a checkpoint takes on the disk besides its state.
    "checkpoint_bytes": 0,
    # Bits per byte by which the candidate needs less than the others; below zero it needs more.
    "gain": 0.05,
    # Fail in this step of `train`, or when a member contains this text: {"step": 3, "text": "…", "reason": "nan"}.
    "fail": None,
    # `train` stays before this step until a file `go` lies in the home, or it is asked to stop.
    "hold_step": None,
}


def work(verb: str, job_dir: Path, child: Child) -> None:
    """Do what the real `work` does, with a hash for a model."""
    failpoints.arm(os.environ, "tiny")
    job = Job.model_validate_json((job_dir / "job.json").read_text())
    steering = {**DEFAULTS, **_read(job_dir.parents[2] / STEERING)}
    child.phase("import")
    time.sleep(steering["import_s"])  # an import cannot be interrupted
    with hold_device(job_dir.parents[1], job.device, child):
        child.phase("tokenize")
        _wait(steering["tokenize_s"], child)
        {"train": train, "pretrain": pretrain, "full": pretrain, "range_test": range_test, "evaluate": evaluate}[verb](
            job, job_dir, child, steering
        )


def pretrain(job: Job, job_dir: Path, child: Child, steering: dict[str, Any]) -> None:
    """Make base/ and result.json."""
    if job.recipe is not None:
        memory = {"weights": 1 << 30, "adapters": 0, "optimizer": 2 << 30}
        passes = {"micro_batch": 4, "accumulation": 1, "checkpointed_layers": 1}
        child.emit("plan", **passes, planned_bytes=3 << 30, memory=memory)
    weights = _steps(job, job_dir, child, steering)
    _save(job, job_dir, "base", "model.safetensors", weights, steering["steps"])


def train(job: Job, job_dir: Path, child: Child, steering: dict[str, Any]) -> None:
    """Make adapter/ and result.json."""
    child.emit("plan", micro_batch=2, accumulation=1, checkpointed_layers=1, planned_bytes=3 << 20)
    weights = _steps(job, job_dir, child, steering)
    _save(job, job_dir, "adapter", "adapter_model.safetensors", weights, steering["steps"])


def range_test(job: Job, job_dir: Path, child: Child, steering: dict[str, Any]) -> None:
    """Write points.json: the loss falls with the rate."""
    assert job.rates is not None
    _steps(job, job_dir, child, steering)
    points = [{"rate": 1e-6 * 10 ** (step / 5), "loss": 5 - step / 10, "smoothed": 5 - step / 10} for step in range(30)]
    write_json(job_dir / "points.json", {"points": points})


def evaluate(job: Job, job_dir: Path, child: Child, steering: dict[str, Any]) -> None:
    """Write evaluation.json: the candidate is better by `gain`."""
    models = ("base",) if job.incumbent is None else ("base", "incumbent")
    judged = []
    for item in _items(job_dir / TEST):
        num_bytes = len(item.content.encode())
        bits = dict.fromkeys(models, 2.0 * num_bytes) | {"candidate": (2.0 - steering["gain"]) * num_bytes}
        fields = {"item_id": item.item_id, "unit": item.unit, "language": item.language, "num_bytes": num_bytes}
        judged.append(ItemBits(**fields, num_tokens=num_bytes, bits=bits))
    child.phase("evaluate")
    _wait(steering["evaluate_s"], child)
    child.emit("progress", done=len(judged), total=len(judged))
    write_json(job_dir / "evaluation.json", EvaluationResult(items=judged, seconds=1.0).model_dump())


def _steps(job: Job, job_dir: Path, child: Child, steering: dict[str, Any]) -> str:
    """Take every step after the newest whole checkpoint; return the weights. A stop leaves a checkpoint."""
    members, total = list(_items(job_dir / MEMBERS)), steering["steps"]
    step, weights = 0, hashlib.sha256(f"{job.seed}{_incumbent(job)}".encode()).hexdigest()
    if (checkpoint := find_checkpoint(job_dir / "checkpoints")) is not None:
        step, weights = json.loads((checkpoint / "state.json").read_text())
        child.emit("note", note="resumed", message=f"from {checkpoint.name}")
        sys.stderr.write(f"resumed from {checkpoint.name}\n")
    child.emit("attention", attention="sdpa")
    child.phase("train")
    while step < total:
        if child.stop_requested():
            _checkpoint(job_dir, step, weights, child, steering)
            raise Stopped
        with contextlib.suppress(Stopped):
            _wait(steering["step_s"], child)
        if step + 1 == steering["hold_step"]:
            _hold(job_dir.parents[2] / "go", child)
        if child.stop_requested():
            continue
        batch = members[len(members) * step // total : len(members) * (step + 1) // total]
        _fail(steering["fail"], step + 1, batch)
        for item in batch:
            weights = hashlib.sha256(f"{weights}{item.sha256}{item.role}".encode()).hexdigest()
        step += 1
        loss, rest = 3.0 - step / total, {"lr": 1e-4, "grad_norm": 1.0, "data_wait_s": 0.001, "micro_batch": 2}
        figures = {"loss": loss, "smoothed_loss": loss, "tokens": 100 * step, "tokens_per_s": 1.0, "eta_s": 1.0} | rest
        figures |= {"peak_bytes": 2 << 20}
        figures |= {"flops": 1e12, "mfu": 0.4}  # what the daemon adds where it knows the model and the card
        if step == 1:
            child.emit("first_step", seconds=1.0)
        child.emit("step", step=step, total=total, epoch=step / total, **figures)
        if step % steering["checkpoint_steps"] == 0:
            child.emit("eval", step=step, loss=2.0 - step / total, bits_per_byte=2.0, best=True)
            _checkpoint(job_dir, step, weights, child, steering)
    return weights


def _checkpoint(job_dir: Path, step: int, weights: str, child: Child, steering: dict[str, Any]) -> None:
    try:
        with new_checkpoint(job_dir / "checkpoints", step) as folder:
            (folder / "optimizer.pt").write_bytes(bytes(steering["checkpoint_bytes"]))
            (folder / "state.json").write_text(json.dumps([step, weights]))
    except Failed as error:
        if error.failure.reason != "disk":
            raise
        child.emit("note", note="checkpoint_failed", message=str(error))
    else:
        child.emit("checkpoint", step=step, seconds=0.01, bytes=100)


def _fail(asked: dict[str, Any] | None, step: int, batch: list[Item]) -> None:
    if asked is None:
        return
    if asked.get("step") == step or any("text" in asked and asked["text"] in item.content for item in batch):
        reason = asked["reason"]
        raise Failed(reason, f"asked to fail in step {step}", data_caused=asked.get("data_caused", reason == "nan"))


def _save(job: Job, job_dir: Path, made: str, name: str, weights: str, steps: int) -> None:
    with new_folder(job_dir / made) as folder:
        (folder / name).write_text(weights)
        (folder / "adapter_config.json").write_text("{}")
    result = Result(
        steps=steps,
        steps_planned=steps,
        tokens=1000,
        completion_tokens=500,
        seconds=1.0,
        tokens_per_s=1000.0,
        num_samples=steps,
        packing_density=0.9,
        final_loss=2.0,
        best_eval_loss=1.0,
        best_step=steps,
        num_evals=2,
        validation_loss=1.5,
        validation_bits_per_byte=0.75,
        stopped_early=False,
        peak_bytes=1 << 20,
        trainable_parameters=1000,
        base_revision=job.base_revision or "stand-in",
        tokenizer_digest="stand-in",
        attention="sdpa",
        digests={},
        versions={},
    )
    write_json(job_dir / "result.json", result.model_dump())


def _hold(sign: Path, child: Child) -> None:
    while not sign.exists() and not child.stop_requested():
        time.sleep(0.05)


def _wait(seconds: float, child: Child) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        child.check_stop()
        time.sleep(min(0.02, seconds))


def _incumbent(job: Job) -> str:
    return "" if job.continued is None else (job.continued / "adapter_model.safetensors").read_text()


def _items(path: Path) -> list[Item]:
    return [Item.model_validate_json(line) for line in path.read_text().splitlines()]


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


if __name__ == "__main__":
    training.work = work
    sys.exit(training.main())
