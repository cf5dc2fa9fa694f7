"""The base made on this machine is one that transformers loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon.job import Job, Result
from daemon.training.child import Stopped
from daemon.training.pretrain import pretrain

MakeJob = Callable[..., tuple[Job, Path]]
BASE: dict[str, Any] = {"pretrain_learning_rate": 1e-2}


def test_the_base_is_learned_and_loads_by_the_usual_names(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(24, fields={"kind": "base"}, **BASE)
    child = recorder()
    pretrain(job, job_dir, child)
    steps = child.of("step")
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.2
    model = AutoModelForCausalLM.from_pretrained(job_dir / "base")
    tokenizer = AutoTokenizer.from_pretrained(job_dir / "base")
    assert model.config.vocab_size == 512
    assert model.config.model_type == "qwen2"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == model.config.eos_token_id
    assert tokenizer.pad_token == "<|endoftext|>"
    text = "def f(x):\n    return x  # é\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.startswith("<|im_start|>system\nYou are Qwen")
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    result = Result.model_validate_json((job_dir / "result.json").read_text())
    assert "base/model.safetensors" in result.digests
    assert result.best_eval_loss is None


def test_a_stopped_base_resumes_to_the_bit(make_job: MakeJob, recorder: Any) -> None:
    job, whole_dir = make_job(16, fields={"kind": "base"}, **BASE)
    pretrain(job, whole_dir, recorder())
    job, cut_dir = make_job(16, fields={"kind": "base"}, **BASE)
    with pytest.raises(Stopped):
        pretrain(job, cut_dir, recorder(lambda event: event["event"] == "step" and event["step"] == 2))
    pretrain(job, cut_dir, recorder())
    expected, found = (load_file(folder / "base" / "model.safetensors") for folder in (whole_dir, cut_dir))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
