"""Trackers: what they are given, that they stay offline, and that a training does without them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.integrations.integration_utils as integrations
import wandb

from daemon.job import Job
from daemon.training.board import open_board
from daemon.training.tracking import track
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]
SHOWN = {"path": "a.py", "language": "Python", "prompt": "def ", "expected": "f()", "completion": "g()"}


class Writer:
    """Takes TensorBoard's place: keeps what it is told."""

    told: list[tuple[str, Any]] = []  # noqa: RUF012

    def __init__(self, log_dir: str) -> None:
        self.told.append(("log_dir", log_dir))

    def add_text(self, name: str, text: str, step: int = 0) -> None:
        self.told.append((name, text))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value))
        if [one for one, _ in self.told].count("eval/bits_per_byte") == 2:
            raise OSError("no space left")

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


class Run:
    """Takes a W&B run's place."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.is_finished = False

    def log(self, figures: dict[str, Any], step: int) -> None:
        self.logged.append((figures, step))

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Catch how W&B is begun; what it is begun with is in `asked`."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR", "ERROR_REPORTING"):
        monkeypatch.setenv(f"WANDB_{name}", "")  # set by tracking, put back by this
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    found = SimpleNamespace(run=Run(), asked={})
    monkeypatch.setattr(wandb, "init", lambda **asked: (found.asked.update(asked), found.run)[1])
    return found


def test_wandb_gets_figures_completions_and_what_compares_rounds_and_stays_offline(
    make_job: MakeJob, recorder: Any, opened: SimpleNamespace
) -> None:
    job, job_dir = make_job(1, tracker="wandb", fields={"run": 7, "tick": "b2", "decided_by": "a1"})
    child = recorder()
    with track("train", job, job_dir, child):
        child.emit("step", step=1, loss=2.5, lr=1e-3, grad_norm=0.5)
        child.emit("eval", step=1, loss=2.0, bits_per_byte=1.5)
        child.emit("completions", step=1, completions=[SHOWN])

    assert opened.asked["mode"] == "offline"
    assert (opened.asked["group"], opened.asked["job_type"], opened.asked["tags"]) == (
        "micro",
        "adapter",
        ["round-0007"],
    )
    assert {"lora_rank": 8, "run": 7, "tick": "b2", "decided_by": "a1"}.items() <= opened.asked["config"].items()
    steps, evals, shown = (figures for figures, _ in opened.run.logged)
    assert {"step/loss": 2.5, "step/lr": 1e-3, "step/grad_norm": 0.5}.items() <= steps.items()
    assert {"eval/loss": 2.0, "eval/bits_per_byte": 1.5}.items() <= evals.items()
    assert shown["eval/completions"].data == [list(SHOWN.values())]
    assert opened.run.is_finished


def test_the_key_makes_it_online_and_is_told_to_nobody(
    make_job: MakeJob, recorder: Any, opened: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    job, job_dir = make_job(1, tracker="wandb")
    with track("train", job, job_dir, recorder()):
        pass
    assert opened.asked["mode"] == "online"
    assert "0123456789abcdef" not in json.dumps(opened.asked, default=str)


def test_a_tracker_that_fails_is_logged_and_the_training_goes_on(
    make_job: MakeJob, recorder: Any, opened: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    job, job_dir = make_job(1, tracker="wandb")
    with track("train", job, job_dir, recorder()):
        pass
    assert [record.event for record in caplog.records if hasattr(record, "event")] == ["tracker_failed"]


def test_without_its_package_tensorboard_is_asked_for_in_words(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "is_tensorboard_available", lambda: False)
    job, job_dir = make_job(1, tracker="tensorboard")
    child = recorder()
    assert open_board(job, job_dir, child) is None
    (note,) = child.of("note")
    assert "pip install 'codelupe[tensorboard]'" in note["message"]


def test_tensorboard_gets_the_figures_until_it_fails_and_each_evaluation_shows_the_same_samples(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "is_tensorboard_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    job, job_dir = make_job(16, tracker="tensorboard", tracked_completions=2, eval_share=0.5)
    child = recorder()
    train(job, job_dir, child)

    told = [name for name, _ in Writer.told]
    assert Writer.told[0] == ("log_dir", str(job_dir / "tensorboard"))
    assert {"args", "eval/loss", "eval/bits_per_byte"} <= set(told)
    assert {"train/loss", "train/learning_rate", "train/grad_norm"} <= set(told)
    assert told.count("eval/bits_per_byte") == 2  # it failed there, and was not asked again
    shown, evals = child.of("completions"), child.of("eval")
    assert [event["step"] for event in shown] == [event["step"] for event in evals]
    first, *others = [[(one["prompt"], one["expected"]) for one in event["completions"]] for event in shown]
    assert len(first) == 2
    assert all(other == first for other in others)
    assert {one["completion"] for one in shown[0]["completions"]} != {
        one["completion"] for one in shown[-1]["completions"]
    }
