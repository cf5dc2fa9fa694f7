"""Verb `full`: every weight is trained, of a new model or of a base that is there, on a stream of plain text."""

import dataclasses
import math
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from daemon.corpus import first_chars
from daemon.fitting import Fit
from daemon.full_memory import FullShape
from daemon.held_out import MOST_SEQUENCES
from daemon.job import MEMBERS, VALIDATION, Item, Job
from daemon.samples import load_tokenizer, plain_samples, train_tokenizer
from daemon.training.architectures import make_model, make_trainable, save_base
from daemon.training.attention import Attention, choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.board import open_board
from daemon.training.checkpoints import CHECKPOINTS
from daemon.training.child import Child, Failed
from daemon.training.failures import blaming
from daemon.training.folders import new_folder
from daemon.training.material import eval_interval, take_within
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.optimizer import full_optimizer
from daemon.training.passes import checkpoint_layers, read_full_shape, train_fitting
from daemon.training.ranks import rank
from daemon.training.report import save_result
from daemon.training.rows import PackedRows, name_of, read_items
from daemon.training.stream import Place, StreamedRows
from daemon.training.train import make_plan
from daemon.training.trainer import PackedTrainer

TOKENIZER_CHARS = 50_000_000  # of the text's beginning, which is shuffled: more of it changes no merge that matters


class StreamTrainer(PackedTrainer):
    """A trainer whose checkpoint says where in the stream it is: a resumed one does not read all before it again."""

    def __init__(self, model: Any, stream: StreamedRows, *others: Any) -> None:
        super().__init__(model, stream, *others)
        self.stream = stream

    def _write_checkpoint(self) -> int:
        next_row = self.state.global_step * len(self.stream) // self.plan.num_steps
        self.progress.place = self.stream.place_of(next_row).model_dump()
        return super()._write_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.stream.go_on_from(Place.model_validate(self.progress.place))


def full(job: Job, job_dir: Path, child: Child) -> None:
    """Train on the stream in the fastest way that fits, and write base/ and result.json."""
    settings = job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)
    once = partial(full_once, job, job_dir, child, attention)
    train_fitting(job, job_dir, child, _read_shape(job), attention.name, once)


def full_once(job: Job, job_dir: Path, child: Child, attention: Attention, fit: Fit, num_out_of_memory: int) -> None:
    """Make or load tokenizer and model, train, save."""
    settings = job.settings
    assert job.recipe is not None  # noqa: S101 - who starts this verb gives one
    torch.manual_seed(settings.seed)  # each try begins alike

    child.phase("tokenizer")
    held_out = list(read_items(job_dir / VALIDATION))
    without = {item.sha256 for item in held_out}
    tokenizer = _find_tokenizer(job, job_dir, without)
    per_step = settings.micro_batch * settings.accumulation
    num_steps = -(-job.recipe.tokens // (per_step * settings.sequence_tokens))
    num_rows = num_steps * per_step
    rows = StreamedRows(job_dir / MEMBERS, tokenizer, settings, seed=job.seed, num_rows=num_rows, held_out=without)
    validation = choose_measured(held_out, tokenizer, job, num_steps)

    child.phase("load")
    model = _find_model(job, tokenizer, attention).to(job.device)
    checkpoint_layers(model, fit.checkpointed_layers)

    child.phase("train")
    plan = dataclasses.replace(
        make_plan(job, rows, fit.micro_batch, flat=attention.flat),
        optimizer=full_optimizer(settings),
        adam_beta2=0.95,
        patience=None,
        fit=fit,
        num_out_of_memory=num_out_of_memory,
    )
    trainer = StreamTrainer(model, rows, validation, plan, job_dir / CHECKPOINTS, child)
    trainer.track(open_board(job, job_dir, child))
    progress = trainer.run()
    if rank() > 0:
        return

    child.phase("save")
    with new_folder(job_dir / "base") as folder:
        model.to(compute_dtype(settings))
        if job.recipe.architecture is None:  # as it was, chat template and all
            model.save_pretrained(str(folder))
            AutoTokenizer.from_pretrained(job.base, revision=job.base_revision).save_pretrained(str(folder))
        else:
            save_base(model, tokenizer, folder)
    save_result(job, job_dir, "base", model, tokenizer, plan, progress, rows, rows.place.samples, attention.name)


def _read_shape(job: Job) -> FullShape:
    """Return the shape of what is made, or of the base that is trained on."""
    assert job.recipe is not None  # noqa: S101 - as above
    if job.recipe.architecture is not None:
        return FullShape.of_settings(job.settings, job.recipe.architecture)
    return read_full_shape(job)


def choose_measured(held_out: list[Item], tokenizer: Tokenizer, job: Job, num_steps: int) -> PackedRows | None:
    """Take plain samples of held-out items, by hash, as many as `eval_share` and MOST_SEQUENCES allow.

    A token that all weights learn costs three forward passes, one that is measured a single one.
    """
    settings = job.settings
    assert job.recipe is not None  # noqa: S101 - as above
    num_evals = 1 + math.ceil(num_steps / eval_interval(num_steps, settings))
    affordable = settings.eval_share * job.recipe.tokens * 3 / num_evals
    samples = []
    for item in sorted(held_out, key=lambda item: item.sha256):
        with blaming([name_of(item)], claimed=False):
            samples += plain_samples(item, tokenizer, settings)
    return take_within(min(affordable, MOST_SEQUENCES * settings.sequence_tokens), samples, settings)


def _find_tokenizer(job: Job, job_dir: Path, without: Container[str]) -> Tokenizer:
    """Return the base's, or one made of the first characters of what is learned, once."""
    if job.recipe is not None and job.recipe.architecture is None:
        return load_base_tokenizer(job)
    folder = job_dir / "tokenizer"
    if not folder.exists():
        made = train_tokenizer(_first_texts(job_dir / MEMBERS, without), job.settings.vocabulary)
        with new_folder(folder) as temporary:
            made.save(str(temporary / "tokenizer.json"))
    return load_tokenizer(str(folder))


def _first_texts(path: Path, without: Container[str]) -> Iterator[str]:
    learned = (item for item in read_items(path) if item.sha256 not in without)
    return (item.content for item in first_chars(learned, TOKENIZER_CHARS))


def _find_model(job: Job, tokenizer: Tokenizer, attention: Attention) -> Any:
    """Return what is to be trained, its weights in fp32: in half of it, small steps would round to none."""
    settings = job.settings
    if job.recipe is not None and job.recipe.architecture is not None:
        return make_model(settings, tokenizer, attention.implementation, job.recipe.architecture)
    whole = settings.model_copy(update={"quantisation": "none", "compute_dtype": "float32"})
    model = load_base(job.model_copy(update={"settings": whole}), attention)
    positions = model.config.max_position_embeddings
    if settings.sequence_tokens > positions:
        raise Failed(
            "data", f"sequences of {settings.sequence_tokens} tokens, but {job.base} has {positions} positions: set "
            "a smaller CODELUPE_SEQUENCE_TOKENS",
        )  # fmt: skip
    return make_trainable(model).requires_grad_(True)
