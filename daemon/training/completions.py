"""What the model writes at each evaluation: a few held-out samples, always the same, continued token by token."""

import logging
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from daemon.samples import Sample
from daemon.training.child import Child, Stopped
from daemon.training.data import collate
from daemon.training.model import head, hidden_at_targets
from daemon.training.rows import PackedRows

log = logging.getLogger(__name__)
# Each token costs a forward pass over all prompts: so they are the shortest, and together at most so long, but for the
# first. At nine evaluations that is about 4 % of the passes of a run of thirteen steps of 65,536 tokens.
NUM_TOKENS, MAX_PROMPT_TOKENS = 24, 512
SHOWN_CHARS = 400


def choose(validation: PackedRows, num: int) -> list[Sample]:
    """Return the samples with the shortest prompts, at most `num`; the same whenever it is asked."""
    samples = sorted((sample for row in validation.rows for sample in row), key=lambda sample: sample.prompt_tokens)
    ends = accumulate(sample.prompt_tokens for sample in samples)
    fitting = [sample for sample, end in zip(samples, ends, strict=True) if end <= MAX_PROMPT_TOKENS]
    return (fitting or samples[:1])[:num]


class Completions:
    """The samples to continue; what goes wrong with them is logged, and ends them but not the training."""

    def __init__(self, validation: PackedRows | None, num: int, tokenizer: Tokenizer, child: Child) -> None:
        self._samples = choose(validation, num) if validation is not None and num else []
        self._tokenizer, self._child = tokenizer, child

    def show(self, trainer: Any) -> None:
        """Emit what the trainer's model writes now, beside what is in the file."""
        if not self._samples:
            return
        try:
            made = self._continue(trainer)
            told = [self._describe(sample, tokens) for sample, tokens in zip(self._samples, made, strict=True)]
            self._child.emit("completions", step=trainer.state.global_step, completions=told)
        except Stopped:
            raise
        except Exception:  # a courtesy: the training goes on without
            log.exception("no more completions are shown", extra={"event": "completions_failed"})
            self._samples = []

    @torch.no_grad()
    def _continue(self, trainer: Any) -> list[list[int]]:
        """Return the likeliest NUM_TOKENS tokens after each prompt; draws no random number, keeps no cache."""
        given = [sample.input_ids[: sample.prompt_tokens].tolist() for sample in self._samples]
        lengths = [len(ids) for ids in given]
        for _ in range(NUM_TOKENS):
            self._child.check_stop()
            # The token behind each prompt is what is asked for: whatever stands there is not seen.
            row = [
                replace(sample, input_ids=np.array([*ids, 0], dtype=np.uint32), prompt_tokens=len(ids))
                for sample, ids in zip(self._samples, given, strict=True)
            ]
            batch = trainer._prepare_inputs(collate([row], flat=trainer.plan.flat))  # noqa: SLF001 - as `evaluate` does
            weight = head(trainer.model)
            hidden = hidden_at_targets(trainer.model, batch, trainer.plan.dtype)
            for ids, token in zip(given, (hidden.to(weight.dtype) @ weight.T).argmax(-1).tolist(), strict=True):
                ids.append(token)
        return [ids[length:] for ids, length in zip(given, lengths, strict=True)]

    def _describe(self, sample: Sample, made: list[int]) -> dict[str, str]:
        ids = sample.input_ids.tolist()
        text = {"prompt": ids[: sample.prompt_tokens], "expected": ids[sample.prompt_tokens :][:NUM_TOKENS]}
        decoded = {name: self._tokenizer.decode(part, skip_special_tokens=False) for name, part in text.items()}
        return {
            "path": sample.path,
            "language": sample.language,
            "prompt": decoded["prompt"][-SHOWN_CHARS:],
            "expected": decoded["expected"],
            "completion": self._tokenizer.decode(made, skip_special_tokens=False),
        }
