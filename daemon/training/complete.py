"""Verb `complete`: let an adapter continue a text, or fill a hole in one."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from daemon.config import TrainingSettings
from daemon.files import write_json
from daemon.samples import Frames
from daemon.samples.tokens import END_OF_TEXT, TURN_END
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.lora import load_adapters
from daemon.training.model import prepare_device

QUESTION, ANSWER = "question.json", "answer.json"


class Question(BaseModel):
    """question.json: what to complete, with what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainingSettings
    device: Literal["cpu", "cuda"]
    base: str
    base_revision: str | None = None
    base_cache: Path | None = None
    """Where the quantised base is kept; unset: nowhere."""
    adapter: Path | None = None
    """Folder of the adapter; unset: the base alone."""
    prefix: str
    """The code before the cursor."""
    suffix: str | None = None
    """The code behind it; unset: continue `prefix`."""
    language: str = "Python"
    max_tokens: int = Field(64, ge=1)
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token each time."""


def complete(job_dir: Path, child: Child) -> None:
    """Answer question.json in answer.json."""
    question = Question.model_validate_json((job_dir / QUESTION).read_text())
    prepare_device(question)
    tokenizer = load_base_tokenizer(question)
    prompt = Frames(tokenizer).prompt_of(question.language, question.prefix, question.suffix)
    child.phase("load")
    model = load_base(question, note=child.note)  # SDPA: the variable-length kernels have no cache
    if question.adapter is not None:
        model = load_adapters(model, {"candidate": question.adapter})
    child.phase("complete")
    ids = generate(model, [int(token) for token in prompt], tokenizer, question, child)
    write_json(job_dir / ANSWER, {"text": tokenizer.decode(ids), "num_tokens": len(ids)})


@torch.no_grad()
def generate(model: Any, prompt: list[int], tokenizer: Tokenizer, question: Question, child: Child) -> list[int]:
    """Return the new tokens, without the end token."""
    ends = {tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(TURN_END)}
    made: list[int] = []
    cache = None
    given = torch.tensor([prompt], device=question.device)
    while len(made) < question.max_tokens:
        child.check_stop()
        out = model(input_ids=given, past_key_values=cache, use_cache=True)
        cache, token = out.past_key_values, _choose(out.logits[0, -1], question.temperature)
        if token in ends:
            break
        made.append(token)
        given = torch.tensor([[token]], device=question.device)
    return made


def _choose(logits: torch.Tensor, temperature: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.float() / temperature).softmax(-1), 1))
