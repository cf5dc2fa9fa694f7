"""Real code of this machine as items, and a tokenizer trained on some of it."""

import argparse
import dataclasses
import inspect
import json
import json.decoder
import textwrap
import typing
from functools import cache
from hashlib import sha256

from tokenizers import Tokenizer, models, pre_tokenizers

from daemon.job import Item
from daemon.samples import SPECIAL_TOKENS, train_tokenizer

PYTHON = inspect.getsource(dataclasses)

SOURCES = {
    "python": """import os


def a(x):
    y = x + 1
    return y


def b(x):
    if x:
        return a(x)
    return 0
""",
    "go": """package main

import "fmt"

func a(x int) int {
\ty := x + 1
\treturn y
}

func b() {
\tfmt.Println(a(2))
}
""",
    "rust": """fn a(x: i32) -> i32 {
    let y = x + 1;
    y
}

fn b() -> i32 {
    let z = a(2);
    return z;
}
""",
    "typescript": """export function a(x: number): number {
  const y = x + 1;
  return y;
}

const b = a(2);
console.log(b);
""",
    "javascript": """function a(x) {
  const y = x + 1;
  return y;
}

const b = a(2);
console.log(b);
""",
    "dart": """int a(int x) {
  var y = x + 1;
  return y;
}

void main() {
  var b = a(2);
  print(b);
}
""",
}


def make_item(content: str, language: str = "python", item_id: int = 1) -> Item:
    """Return a claimed row with this text."""
    return Item(
        ordinal=0,
        item_id=item_id,
        role="train",
        content=content,
        sha256=sha256(content.encode()).hexdigest(),
        language=language,
        path="a.py",
        repository="here",
        unit="a",
    )


@cache
def code_tokenizer() -> Tokenizer:
    """Return a byte-level BPE of 2,048 entries, trained on a few modules."""
    return train_tokenizer([inspect.getsource(module) for module in (argparse, json.decoder, textwrap, typing)], 2048)


@cache
def qwen_like_json() -> str:
    """Return a tokenizer.json with Qwen2.5-Coder's ids: 151,643 entries, then its added tokens.

    As in the real file, the FIM and repository tokens (from 151657 on) are not marked special, and text is
    normalised to NFC.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {entry: number for number, entry in enumerate(letters)}
    vocabulary |= {f"unused{number}": number for number in range(len(letters), 151_643)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    described = json.loads(tokenizer.to_str())
    described["normalizer"] = {"type": "NFC"}
    described["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
    described["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    names = [*SPECIAL_TOKENS[:3], *(f"<|vision_{number}|>" for number in range(11)), "<tool_call>", "</tool_call>"]
    described["added_tokens"] = [
        {
            "id": 151_643 + place,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": 151_643 + place < 151_657,
        }
        for place, name in enumerate([*names, *SPECIAL_TOKENS[3:]])
    ]
    return json.dumps(described)
