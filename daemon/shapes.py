"""Sizes of the models: parameters and arithmetic per token, as far as a forecast needs them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from daemon.config import LOCAL_BASE, TrainingSettings

_TINY_HEAD = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2 architecture. `num_*` are counts of parameters unless they name something else."""

    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool

    @classmethod
    def from_config(cls, file: Path) -> Self:
        """Read a config.json of the Qwen2 family. Raises KeyError where it is of another kind."""
        config = json.loads(file.read_text(encoding="utf-8"))
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return cls(
            num_layers=config["num_hidden_layers"],
            hidden=hidden,
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads", heads),
            head_size=config.get("head_dim") or hidden // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_size

    @property
    def key(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.num_kv_heads * self.head_size

    @property
    def projections(self) -> list[tuple[int, int]]:
        """In and out widths of one layer's q, k, v, o, gate, up and down."""
        attention = [(self.hidden, self.query), *[(self.hidden, self.key)] * 2, (self.query, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    @property
    def num_linear(self) -> int:
        """Parameters of all projections."""
        return self.num_layers * sum(wide * high for wide, high in self.projections)

    @property
    def num_head(self) -> int:
        """Parameters of the head."""
        return self.vocabulary * self.hidden

    @property
    def num_embedding(self) -> int:
        """Parameters of embeddings and head together: one matrix where they are tied."""
        return self.num_head * (1 if self.tied else 2)

    @property
    def num_small(self) -> int:
        """Parameters of all biases and norms."""
        return self.num_layers * (self.query + 2 * self.key + 2 * self.hidden) + self.hidden

    def num_lora(self, rank: int) -> int:
        """Return the parameters of an adapter on all seven projections."""
        return self.num_layers * rank * sum(wide + high for wide, high in self.projections)

    def forward_flops(self, document_tokens: float) -> float:
        """Return the operations to evaluate one token in documents of that length."""
        return 2 * (self.num_linear + self.num_head) + self._attention(document_tokens)

    def pretrain_flops(self, document_tokens: float) -> float:
        """Return the operations to train every weight on one token."""
        return 3 * self.forward_flops(document_tokens)

    def lora_flops(self, rank: int, document_tokens: float, *, recomputed: float = 0.0) -> float:
        """Return the operations to train an adapter on one token.

        The frozen base takes 2 per weight forward and 2 for the gradient of its input, none for its own; the adapter
        takes 6. `recomputed` is the share of the layers whose forward pass is repeated.
        """
        attention, adapter = self._attention(document_tokens), self.num_lora(rank)
        flops = 4 * (self.num_linear + self.num_head) + 6 * adapter + 3 * attention
        return flops + recomputed * (2 * self.num_linear + 2 * adapter + attention)

    def _attention(self, document_tokens: float) -> float:
        return 2 * document_tokens * self.query * self.num_layers


# From the config.json of each model; Qwen2.5 and Qwen2.5-Coder, base and Instruct, are alike.
SHAPES = {
    "0.5B": Shape(24, 896, 14, 2, 64, 4864, 151_936, tied=True),
    "1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151_936, tied=True),
    "3B": Shape(36, 2048, 16, 2, 128, 11_008, 151_936, tied=True),
    "7B": Shape(28, 3584, 28, 4, 128, 18_944, 152_064, tied=False),
    "14B": Shape(48, 5120, 40, 8, 128, 13_824, 152_064, tied=False),
    "32B": Shape(64, 5120, 40, 8, 128, 27_648, 152_064, tied=False),
}


def find_shape(settings: TrainingSettings) -> Shape | None:
    """Return the shape of the configured base: made here, a known name, or a folder with a config.json; else None."""
    name = settings.base_model
    if name == LOCAL_BASE:
        return local_shape(settings)
    config = Path(name).expanduser() / "config.json"
    if config.is_file():
        try:
            return Shape.from_config(config)
        except (KeyError, TypeError, ValueError):  # of another family, or damaged: who loads it says so
            return None
    parts = name.split("/")[-1].split("-")
    return next((shape for size, shape in SHAPES.items() if parts[0] == "Qwen2.5" and size in parts), None)


class UnfitBaseError(ValueError):
    """No adapter can be trained on the configured base; the message says why, and what to set."""


def check_family(settings: TrainingSettings) -> None:
    """Raise UnfitBaseError where the base is a folder with a model of another family; a hub's may not be here yet."""
    config = Path(settings.base_model).expanduser() / "config.json"
    if config.is_file() and (family := find_other_family(config)):
        raise UnfitBaseError(describe_other_family(settings.base_model, family))


def find_other_family(file: Path) -> str | None:
    """Return the `model_type` of a config.json that is not of the Qwen2 family; None: it is, or it is damaged."""
    try:
        Shape.from_config(file)
    except KeyError:
        family = json.loads(file.read_text(encoding="utf-8")).get("model_type")
        return family if isinstance(family, str) else None
    except (TypeError, ValueError):
        return None
    return None


def describe_other_family(base: str, family: str) -> str:
    """Return that no adapter can be trained on a base, and what to set."""
    whole = f", or train all its weights: codelupe train base FOLDER --from {base}" if family == "gpt2" else ""
    return (
        f"CODELUPE_BASE_MODEL={base} is a model of type {family!r}, and adapters are trained on the Qwen2 family only: "
        f"set CODELUPE_BASE_MODEL to one of that (`codelupe train base` makes one, too) and a new CODELUPE_LINE{whole}"
    )


def local_shape(settings: TrainingSettings) -> Shape:
    """Return the shape of the base that is made on this machine."""
    num_heads = settings.hidden_size // _TINY_HEAD
    return Shape(
        num_layers=settings.num_layers,
        hidden=settings.hidden_size,
        num_heads=num_heads,
        num_kv_heads=max(1, num_heads // 2),
        head_size=_TINY_HEAD,
        intermediate=settings.intermediate_size,
        vocabulary=settings.vocabulary,
        tied=True,
    )
