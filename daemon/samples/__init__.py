"""How a file becomes samples: tokenizer, frames, cuts at syntax boundaries, packing. No torch here."""

from daemon.samples.builders import build_all, build_samples, evaluation_samples, plain_samples
from daemon.samples.drafts import Sample
from daemon.samples.frames import Frames, NoRoom
from daemon.samples.hub import BaseError, describe_missing, find_file, words_of
from daemon.samples.packing import density, pack
from daemon.samples.tokens import (
    SPECIAL_TOKENS,
    TokenizerError,
    chars_per_token,
    load_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)

__all__ = [
    "SPECIAL_TOKENS",
    "BaseError",
    "Frames",
    "NoRoom",
    "Sample",
    "TokenizerError",
    "build_all",
    "build_samples",
    "chars_per_token",
    "density",
    "describe_missing",
    "evaluation_samples",
    "find_file",
    "load_tokenizer",
    "pack",
    "plain_samples",
    "tokenizer_digest",
    "train_tokenizer",
    "words_of",
]
