"""Verb `pretrain`: the base of `local:tiny`, made on this machine: tokenizer, then a small Qwen2 from scratch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config

from daemon.config import TrainingSettings
from daemon.job import MEMBERS, Item, Job
from daemon.samples import SPECIAL_TOKENS, plain_samples, train_tokenizer
from daemon.training.attention import choose_attention
from daemon.training.board import open_board
from daemon.training.child import Child, Failed
from daemon.training.data import PackedRows, build_samples_of, name_of, pack_rows, read_items
from daemon.training.failures import blaming
from daemon.training.folders import new_folder
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.report import save_result
from daemon.training.train import CHECKPOINTS, make_plan
from daemon.training.trainer import PackedTrainer

HEAD_SIZE = 64
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
# Qwen2.5's ChatML without its tools part.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def pretrain(job: Job, job_dir: Path, child: Child) -> None:
    """Train the tokenizer and the base on the members, and write base/ and result.json."""
    settings = job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)

    child.phase("tokenizer")
    members = list(read_items(job_dir / MEMBERS))
    if not members:
        raise Failed("disk", f"{job_dir / MEMBERS} is empty: it has lost its rows")
    tokenizer = train_tokenizer([item.content for item in members], settings.vocabulary)

    child.phase("tokenize")
    rows, num_samples = make_curriculum(members, tokenizer, job)

    child.phase("load")
    model = make_model(settings, tokenizer, attention.implementation).to(job.device)

    child.phase("train")
    plan = dataclasses.replace(
        make_plan(job, rows, settings.micro_batch, flat=attention.flat),
        learning_rate=settings.pretrain_learning_rate,
        optimizer="adamw_torch",
        adam_beta2=0.95,
    )
    trainer = PackedTrainer(model, rows, None, plan, job_dir / CHECKPOINTS, child)
    trainer.track(open_board(job, job_dir, child))
    progress = trainer.run()

    child.phase("save")
    with new_folder(job_dir / "base") as folder:
        save_base(model, tokenizer, folder)
    save_result(job, job_dir, "base", model, tokenizer, plan, progress, rows, num_samples, attention.name)


def make_curriculum(members: list[Item], tokenizer: Tokenizer, job: Job) -> tuple[PackedRows, int]:
    """Pack plain text first, then sample frames: each member is in one of the two, once.

    Here every token is learned, prompts too: two thirds of a framed sample are prompt, and a base knows nothing yet.
    """
    settings = job.settings
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(job.seed)).tolist()
    num_framed = round(sum(len(item.content) for item in members) * settings.pretrain_frame_share)
    plain, framed = [], []
    for index in order:
        item = members[index]
        if num_framed > 0:
            samples = build_samples_of([item], tokenizer, settings, seed=job.seed)
            framed += [dataclasses.replace(sample, prompt_tokens=0) for sample in samples]
            num_framed -= len(item.content)
        else:
            with blaming([name_of(item)]):
                plain += plain_samples(item, tokenizer, settings)
    rows = [pack_rows(part, settings.sequence_tokens, seed=job.seed).rows for part in (plain, framed)]
    if not (plain or framed):
        raise Failed("data", f"the {len(members)} claimed rows give no sample", data_caused=True)
    return PackedRows(rows[0] + rows[1]), len(plain) + len(framed)


def make_model(settings: TrainingSettings, tokenizer: Tokenizer, attention: str = "sdpa") -> Any:
    """Return an untrained Qwen2 of the settings' size; its embeddings are tied."""
    num_heads = settings.hidden_size // HEAD_SIZE
    config = Qwen2Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, num_heads // 2),
        max_position_embeddings=max(4096, settings.sequence_tokens),
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END_OF_TURN),
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
        dtype=compute_dtype(settings),
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)  # type: ignore[no-untyped-call]
    return model.train()


def save_base(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer load."""
    ends = [tokenizer.token_to_id(token) for token in (END_OF_TURN, END_OF_TEXT)]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=ends, pad_token_id=ends[1]
    )
    model.save_pretrained(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": END_OF_TURN, "pad_token": END_OF_TEXT}
    extra = [token for token in SPECIAL_TOKENS if token not in names.values()]
    described = {
        **names,
        "additional_special_tokens": extra,
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.config.max_position_embeddings,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=1))
    (folder / "special_tokens_map.json").write_text(json.dumps({**names, "additional_special_tokens": extra}, indent=1))
