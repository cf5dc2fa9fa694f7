"""The tokenizer: loaded or trained, and encoding in which no reserved id can come from a text (I7)."""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from daemon.samples.hub import BaseError, describe_missing, find_file, words_of

Ids = NDArray[np.uint32]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
# Qwen2.5-Coder's, in the order of its ids (151643 to 151645 and 151659 to 151664).
SPECIAL_TOKENS = (
    END_OF_TEXT,
    TURN_START,
    TURN_END,
    FIM_PREFIX,
    FIM_MIDDLE,
    FIM_SUFFIX,
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
# Qwen2's pre-tokenizer: digits one by one, words with the space before them, newlines with the space before them.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TokenizerError(BaseError):
    """A tokenizer is unfit; the message says which and what to set."""


def load_tokenizer(base: str, revision: str | None = None, *, local_only: bool = False) -> Tokenizer:
    """Load the tokenizer of a base model: a folder, or a name on the hub (its cache first when there is no network).

    Every added token is made special, so that `encode_special_tokens` holds it back: Qwen2.5-Coder's own file marks the
    FIM, repository and tool tokens as ordinary, and they would be recognised in a file's text. The NFC normaliser of
    Qwen2 is dropped: it would change the bytes of string literals, and ids must decode to exactly the file's text for
    bits per byte. The ids of text that is in NFC already, nearly all code, stay the same.

    Raises:
        BaseError: nothing there.
        TokenizerError: it is damaged, or lacks one of SPECIAL_TOKENS.
    """
    file = find_file(base, "tokenizer.json", revision, local_only=local_only)
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        described["normalizer"] = None
        for token in described.get("added_tokens", []):
            token["special"] = True
        tokenizer = Tokenizer.from_str(json.dumps(described))
    except Exception as error:  # tokenizers raises this very class for what it cannot read
        raise TokenizerError(describe_missing(base, revision, f"{file} is damaged: {words_of(error)}")) from error
    return _harden(tokenizer, base)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with Qwen2's pre-tokenizer and SPECIAL_TOKENS; the order of the texts does not matter.

    Without a normaliser, so every text comes back byte by byte.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _harden(tokenizer, "the trained tokenizer")


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of what decides the ids: vocabulary, merges, reserved tokens, splitting."""
    described = json.loads(tokenizer.to_str())
    added = [(token["id"], token["content"]) for token in described["added_tokens"]]
    deciding = [described["model"]["vocab"], described["model"]["merges"], added]
    deciding += [described["normalizer"], described["pre_tokenizer"]]
    return sha256(json.dumps(deciding, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def reserved_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids that only a frame may hold."""
    return set(tokenizer.get_added_tokens_decoder())


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of one of SPECIAL_TOKENS."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise TokenizerError(f"the tokenizer has no {token}")
    return int(found)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Encode texts as data, in parallel.

    Raises:
        TokenizerError: a text gave a reserved id; it must not, whatever it says.
    """
    encoded = [np.array(one.ids, np.uint32) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    reserved = np.array(sorted(reserved_ids(tokenizer)), np.uint32)
    if encoded and np.isin(np.concatenate(encoded), reserved).any():
        raise TokenizerError("text gave a reserved id: this tokenizer is not hardened, load it with load_tokenizer")
    return encoded


def chars_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float | None:
    """Return how many characters of these texts a token stands for, on average; None without a token."""
    num_tokens = sum(map(len, encode_texts(tokenizer, texts)))
    return sum(map(len, texts)) / num_tokens if num_tokens else None


def _harden(tokenizer: Tokenizer, name: str) -> Tokenizer:
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise TokenizerError(
            f"the tokenizer of {name} lacks {', '.join(missing)}: "
            "set CODELUPE_BASE_MODEL to a model of the Qwen2.5-Coder family"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
