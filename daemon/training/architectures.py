"""Models to train from the first weight on: Qwen2 and GPT-2 of any size, and the folder that one is saved in."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config, PreTrainedConfig, Qwen2Config
from transformers.activations import NewGELUActivation

from daemon.config import TrainingSettings
from daemon.samples import SPECIAL_TOKENS

HEAD_SIZE = 64
LEAST_POSITIONS = 4096  # a base that learned short sequences may be adapted with longer ones
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


def make_model(settings: TrainingSettings, tokenizer: Tokenizer, attention: str = "sdpa", kind: str = "qwen2") -> Any:
    """Return an untrained fp32 model of the settings' size, `qwen2` or `gpt2`; its embeddings are tied."""
    config = {"qwen2": _qwen2, "gpt2": _gpt2}[kind](settings)
    config.bos_token_id = None
    config.eos_token_id = tokenizer.token_to_id(END_OF_TURN)
    config.pad_token_id = tokenizer.token_to_id(END_OF_TEXT)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)  # type: ignore[no-untyped-call]
    return make_trainable(model).train()


def _qwen2(settings: TrainingSettings) -> PreTrainedConfig:
    num_heads = settings.hidden_size // HEAD_SIZE
    return Qwen2Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, num_heads // 2),
        max_position_embeddings=max(LEAST_POSITIONS, settings.sequence_tokens),
        tie_word_embeddings=True,
        use_cache=False,
    )


def _gpt2(settings: TrainingSettings) -> PreTrainedConfig:
    """Its positions are learned, so there are as many as a sequence is long, and no more can be used later."""
    return GPT2Config(
        vocab_size=settings.vocabulary,
        n_embd=settings.hidden_size,
        n_inner=settings.intermediate_size,
        n_layer=settings.num_layers,
        n_head=settings.hidden_size // HEAD_SIZE,
        n_positions=settings.sequence_tokens,
        use_cache=False,
    )


def make_trainable(model: nn.Module) -> nn.Module:
    """Set every dropout to 0, and let a GPT-2's GELU be computed by one kernel, which keeps its input alone.

    A pass over data that is rarely repeated needs no dropout, and a resume has nothing to draw. Made of single
    operations, the GELU would keep seven tensors as wide as the MLP.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "act", None), NewGELUActivation):
            module.act = nn.GELU(approximate="tanh")
    return model


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
