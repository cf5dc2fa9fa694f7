"""Training: it learns, resumes to the bit, stops, stops early, keeps the best, and says why it failed."""

import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim.optimizer import GlobalOptimManager
from safetensors.torch import load_file, save_file

from daemon.job import Failure, Job, Result
from daemon.training import trainer as trainer_module
from daemon.training import validation as validation_module
from daemon.training.__main__ import set_environment
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child, Failed, Stopped
from daemon.training.material import choose_validation, make_rows
from daemon.training.rows import read_items
from daemon.training.schedule import is_spike, rate_share, tokens_per_second
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]


def result_of(job_dir: Path) -> Result:
    return Result.model_validate_json((job_dir / "result.json").read_text())


def adapter_of(job_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(job_dir / "adapter" / "adapter_model.safetensors")


def notes_of(child: Any, note: str) -> list[str]:
    return [event["message"] for event in child.of("note") if event["note"] == note]


def at_step(step: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "step" and event["step"] == step


def test_it_learns_and_goes_on_learning_after_each_evaluation(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(24)
    child = recorder()
    train(job, job_dir, child)
    evals, steps = child.of("eval"), child.of("step")
    assert [event["step"] for event in evals[:2]] == [0, 1]
    assert evals[-1]["loss"] < evals[0]["loss"] - 0.2
    assert evals[-1]["bits_per_byte"] < evals[0]["bits_per_byte"]
    assert all(event["grad_norm"] > 0 for event in steps)
    result = result_of(job_dir)
    assert result.steps == result.steps_planned == len(steps) > 8
    assert result.num_evals == len(evals)
    assert result.tokens == steps[-1]["tokens"] > result.completion_tokens > 0
    assert set(result.digests) == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def test_pieces_that_give_no_sample_are_counted(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(24)
    child = recorder()
    train(job, job_dir, child)
    assert re.fullmatch(
        rf"[1-9]\d* too long for the frame; {result_of(job_dir).num_samples} samples were made",
        notes_of(child, "pieces_dropped")[0],
    )


def test_the_adapter_names_its_base_and_no_path(make_job: MakeJob, recorder: Any, tmp_path: Path) -> None:
    job, job_dir = make_job(2)
    train(job, job_dir, recorder())
    text = (job_dir / "adapter" / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "local:tiny"
    assert str(tmp_path.parent) not in text
    assert sorted(path.name for path in (job_dir / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_stopped_run_resumes_to_the_bit(make_job: MakeJob, recorder: Any) -> None:
    job, whole_dir = make_job(24, accumulation=2)
    whole = recorder()
    train(job, whole_dir, whole)
    job, cut_dir = make_job(24, accumulation=2)
    before, after = recorder(at_step(3)), recorder()
    with pytest.raises(Stopped):
        train(job, cut_dir, before)
    train(job, cut_dir, after)
    assert len(notes_of(after, "resumed")) == 1
    for name in ("step", "eval"):
        told = {event["step"]: event["loss"] for event in before.of(name) + after.of(name)}
        assert told == {event["step"]: event["loss"] for event in whole.of(name)}
    assert len(before.of("step")) == 3
    expected, found = adapter_of(whole_dir), adapter_of(cut_dir)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    kept = {"steps", "tokens", "completion_tokens", "best_step", "best_eval_loss", "num_evals", "final_loss", "digests"}
    assert result_of(cut_dir).model_dump(include=kept) == result_of(whole_dir).model_dump(include=kept)


def test_a_torn_checkpoint_is_passed_over(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(24, checkpoint_interval_s=1e-9)
    with pytest.raises(Stopped):
        train(job, job_dir, recorder(at_step(4)))
    kept = sorted(path.name for path in (job_dir / "checkpoints").iterdir())
    assert kept == ["checkpoint-00000003", "checkpoint-00000004"]
    (job_dir / "checkpoints" / kept[1] / "weights.safetensors").write_bytes(b"torn")
    child = recorder(at_step(4))
    with pytest.raises(Stopped):
        train(job, job_dir, child)
    assert notes_of(child, "resumed") == ["from checkpoint-00000003"]
    assert [event["step"] for event in child.of("step")] == [4]


def test_it_stops_early_and_keeps_the_best_adapter(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(40, learning_rate=20.0, patience=2)  # a rate that soon makes it worse
    child = recorder()
    train(job, job_dir, child)
    result = result_of(job_dir)
    losses = {event["step"]: event["loss"] for event in child.of("eval")}
    assert result.stopped_early
    assert result.best_step < result.steps < result.steps_planned
    assert result.best_eval_loss == min(losses.values()) == losses[result.best_step] < losses[result.steps]
    job, next_dir = make_job(2, fields={"incumbent": str(job_dir / "adapter")})
    child = recorder()
    train(job, next_dir, child)
    assert child.of("eval")[0]["loss"] == pytest.approx(result.best_eval_loss, rel=1e-6)


def at_eval(step: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "eval" and event["step"] == step


@pytest.mark.parametrize("cut", ["in the evaluation that decides", "after its checkpoint"])
def test_a_run_cut_off_as_it_stops_early_trains_no_further_batch(make_job: MakeJob, recorder: Any, cut: str) -> None:
    unsteady = {"learning_rate": 20.0, "patience": 2, "checkpoint_interval_s": 1e-9}
    job, whole_dir = make_job(40, **unsteady)
    train(job, whole_dir, recorder())
    expected = result_of(whole_dir)
    job, cut_dir = make_job(40, **unsteady)
    before = recorder(at_step(expected.steps) if cut.startswith("in") else at_eval(expected.steps))
    with pytest.raises(Stopped):
        train(job, cut_dir, before)
    assert [event["step"] for event in before.of("checkpoint")][-1] == expected.steps
    after = recorder()
    train(job, cut_dir, after)
    assert after.of("step") == []
    assert len(after.of("eval")) == (1 if cut.startswith("in") else 0)
    kept = {"steps", "tokens", "best_step", "best_eval_loss", "num_evals", "stopped_early", "digests"}
    assert result_of(cut_dir).model_dump(include=kept) == expected.model_dump(include=kept)


def test_it_goes_on_from_the_incumbents_weights(make_job: MakeJob, recorder: Any) -> None:
    job, first_dir = make_job(16)
    first = recorder()
    train(job, first_dir, first)
    job, second_dir = make_job(16, fields={"incumbent": str(first_dir / "adapter")})
    second = recorder()
    train(job, second_dir, second)
    assert second.of("eval")[0]["loss"] == pytest.approx(min(event["loss"] for event in first.of("eval")), abs=1e-6)
    assert max(event["lr"] for event in second.of("step")) <= 0.5 * job.settings.learning_rate


def test_four_times_four_is_sixteen(make_job: MakeJob, recorder: Any) -> None:
    adapters = []
    for micro_batch, accumulation in [(16, 1), (4, 4)]:
        job, job_dir = make_job(24, micro_batch=micro_batch, accumulation=accumulation, learning_rate=1e-3)
        child = recorder()
        train(job, job_dir, child)
        adapters.append((adapter_of(job_dir), [(event["loss"], event["grad_norm"]) for event in child.of("step")]))
    (expected, told), (found, told_too) = adapters
    assert told_too == [pytest.approx(pair, rel=1e-5) for pair in told]
    assert all((expected[name] - found[name]).abs().max() <= 1e-5 for name in expected)


def test_out_of_memory_halves_the_micro_batch_and_goes_on(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, whole_dir = make_job(24)
    train(job, whole_dir, recorder())
    real = trainer_module.hidden_at_targets

    def scarce(model: Any, batch: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
        if torch.is_grad_enabled() and batch["input_ids"].numel() > job.settings.sequence_tokens:
            raise MemoryError("no room for more than one row")
        return real(model, batch, dtype)

    monkeypatch.setattr(trainer_module, "hidden_at_targets", scarce)
    register = GlobalOptimManager.get_instance()
    num_entered = len(register.module_weight_config_triple)
    job, job_dir = make_job(24)
    child = recorder()
    train(job, job_dir, child)
    told = notes_of(child, "out_of_memory")
    assert len(register.module_weight_config_triple) == num_entered  # an entry would keep the first model alive
    assert [message.split()[3] for message in told] == ["2", "1"]
    assert result_of(job_dir).final_loss == pytest.approx(result_of(whole_dir).final_loss, rel=1e-3)


def test_out_of_memory_in_an_evaluation_halves_the_micro_batch_too(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = validation_module.hidden_at_targets

    def scarce(model: Any, batch: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
        if not torch.is_grad_enabled() and batch["input_ids"].numel() > 2 * job.settings.sequence_tokens:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        return real(model, batch, dtype)

    monkeypatch.setattr(validation_module, "hidden_at_targets", scarce)
    job, job_dir = make_job(24, eval_share=0.5)
    child = recorder()
    train(job, job_dir, child)
    told = notes_of(child, "out_of_memory")
    assert [message.split()[3] for message in told] == ["2"]
    assert result_of(job_dir).steps == result_of(job_dir).steps_planned


def test_the_rate_of_equal_steps_is_the_same_at_every_step() -> None:
    recent: deque[tuple[float, int]] = deque(maxlen=20)
    for step in range(1, 31):
        recent.append((100.0 + step / 2, 50))
        assert tokens_per_second(recent, 100.0) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("before", "after"), [(None, "0"), ("", ""), ("1", "1"), ("2,0", "2"), ("GPU-1f3a, GPU-77c0", "GPU-1f3a")]
)
def test_one_gpu_is_in_sight(before: str | None, after: str) -> None:
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    set_environment(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == after


def test_too_little_memory_for_one_sequence_fails_the_run(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> torch.Tensor:
        raise MemoryError("none")

    monkeypatch.setattr(trainer_module, "sum_losses", none)
    job, job_dir = make_job(2, micro_batch=2)
    child = recorder()
    with pytest.raises(Failed, match="not even one sequence") as caught:
        train(job, job_dir, child)
    assert caught.value.failure.reason == "out_of_memory"
    assert not caught.value.failure.data_caused
    assert len(notes_of(child, "out_of_memory")) == 2  # each one is counted, the last one too


def test_a_long_file_gives_the_validation_two_pieces_at_most(make_job: MakeJob) -> None:
    job, job_dir = make_job(24, eval_share=0.5)
    tokenizer, items = load_base_tokenizer(job), list(read_items(job_dir / "validation.jsonl"))
    long = "\n\n".join(item.content for item in items * 5)
    first = items[0].model_copy(update={"content": long, "sha256": "0" * 64})  # by hash it comes first
    rows, _ = make_rows(read_items(job_dir / "members.jsonl"), tokenizer, job, Child(lambda _: None))
    chosen = choose_validation([first, *items[1:]], tokenizer, job.settings, rows.num_tokens, 2)
    assert chosen is not None
    pieces = Counter(sample.item_id for row in chosen.rows for sample in row)
    assert pieces[first.item_id] == 2
    assert len(pieces) > 1
    assert max(pieces.values()) == 2


def test_a_loss_that_runs_away_ends_the_run_and_keeps_the_incumbent(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    real = trainer_module.sum_losses

    def run_away(*tensors: torch.Tensor) -> torch.Tensor:
        return real(*tensors) * (3.0 if told and told[-1]["step"] >= 12 else 1.0)

    def keep(event: dict[str, Any]) -> bool:
        told.extend([event] if event["event"] == "step" else [])
        return at_step(16)(event)

    monkeypatch.setattr(trainer_module, "sum_losses", run_away)
    job, job_dir = make_job(40, epochs=2)
    with pytest.raises(Stopped):
        train(job, job_dir, recorder(keep))  # what was seen of the spike before a stop counts after it
    with pytest.raises(Failed, match="CODELUPE_LEARNING_RATE") as caught:
        train(job, job_dir, recorder(keep))
    failure = caught.value.failure
    assert failure.reason == "loss_spike"
    assert failure.data_caused
    assert not (job_dir / "result.json").exists()
    assert not (job_dir / "adapter").exists()
    losses = [event["loss"] for event in told]
    assert [event["step"] for event in told] == list(range(1, len(told) + 1))
    assert is_spike(sum(losses[-10:]) / 10, sum(losses[:3]) / 3)
    assert not is_spike(sum(losses[-11:-1]) / 10, sum(losses[:3]) / 3)


@pytest.mark.parametrize(
    ("loss", "first", "spike"),
    [(3.1, 1.0, True), (2.9, 1.0, False), (8.1, 4.0, True), (7.9, 4.0, False), (0.2, 1.0, False), (9.0, 9.0, False)],
)
def test_a_spike_is_twice_the_first_loss_and_two_nats_more(loss: float, first: float, spike: bool) -> None:
    assert is_spike(loss, first) is spike


def train_from_broken_weights(make_job: MakeJob, child: Any, *, validated: bool) -> Failure:
    job, first_dir = make_job(4)
    train(job, first_dir, type(child)())
    weights = adapter_of(first_dir)
    next(iter(weights.values())).fill_(math.nan)
    save_file(weights, first_dir / "adapter" / "adapter_model.safetensors")
    job, job_dir = make_job(4, fields={"incumbent": str(first_dir / "adapter")})
    if not validated:
        (job_dir / "validation.jsonl").write_text("")
    with pytest.raises(Failed) as caught:
        train(job, job_dir, child)
    assert not (job_dir / "result.json").exists()
    return caught.value.failure


def test_a_training_loss_that_is_not_a_number_ends_the_run(make_job: MakeJob, recorder: Any) -> None:
    failure = train_from_broken_weights(make_job, recorder(), validated=False)
    assert failure.reason == "nan"
    assert failure.data_caused
    assert failure.message.startswith("step 1: loss nan")


def test_a_validation_loss_that_is_not_a_number_ends_the_run_and_is_no_best_one(
    make_job: MakeJob, recorder: Any
) -> None:
    child = recorder()
    failure = train_from_broken_weights(make_job, child, validated=True)
    assert failure.reason == "nan"
    assert failure.message.startswith("step 0: validation loss nan")
    assert not failure.data_caused  # nothing was learned from the rows yet
    assert child.of("eval") == []


def test_a_validation_loss_that_stops_being_a_number_is_the_datas_fault(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = validation_module.token_losses

    def breaking(*tensors: torch.Tensor) -> torch.Tensor:
        return real(*tensors) * (1.0 if len(child.of("eval")) < 2 else math.nan)

    monkeypatch.setattr(validation_module, "token_losses", breaking)
    job, job_dir = make_job(24)
    child = recorder()
    with pytest.raises(Failed, match="step 2: validation loss nan") as caught:
        train(job, job_dir, child)
    assert caught.value.failure.data_caused
    assert len(child.of("eval")) == 2


@pytest.mark.parametrize("missing", ["/nowhere/base", "Nobody/No-Such-Model-0B"])
def test_a_missing_base_says_what_to_set(make_job: MakeJob, recorder: Any, missing: str) -> None:
    job, job_dir = make_job(2, fields={"base": missing})
    with pytest.raises(Failed, match="CODELUPE_BASE_MODEL") as caught:
        train(job, job_dir, recorder())
    assert caught.value.failure.reason == "base_missing"
    assert missing in caught.value.failure.message


def test_recomputing_activations_changes_nothing_but_memory(make_job: MakeJob, recorder: Any) -> None:
    losses = []
    for layers in (0, "all"):
        job, job_dir = make_job(6, checkpointed_layers=layers)
        child = recorder()
        train(job, job_dir, child)
        losses.append([event["loss"] for event in child.of("step")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_rate_warms_up_from_the_first_step_and_falls_to_a_tenth() -> None:
    shares = [rate_share(step, num_steps=100, warmup_steps=3) for step in range(101)]
    assert shares[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[100] == pytest.approx(0.1)
