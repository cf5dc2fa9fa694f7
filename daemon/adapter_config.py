"""What can be set of the adapter."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Settings: frozen, checked, and documented by the text under each."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class AdapterSettings(Section):
    """How the adapter is shaped, and how a new one begins."""

    lora_rank: int = Field(256, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(512, ge=1)
    """Scale of the adapter: its product is multiplied by alpha / rank."""
    rslora: bool = False
    """Multiply by alpha / √rank instead (rsLoRA). For ranks from 64 on, where by alpha / rank further rank counts for
    less and less. Alpha means another scale then: with rank 256, alpha 32 gives the scale 2 of 512 without it."""
    adapter_init: Literal["default", "pissa"] = "default"
    """How a new adapter begins: as nothing, or along the principal directions of the base's unquantised weights
    (PiSSA), for a single round that has to learn much from little. It is published as a plain adapter of twice the
    rank, takes the memory of one, and is refused where a round continues an adapter."""

    @property
    def adapter_rank(self) -> int:
        """Rank of a new adapter as it is trained and published."""
        return self.lora_rank * (2 if self.adapter_init == "pissa" else 1)

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        others = [name for name in ("rslora", "weight_decay") if getattr(self, name, None)]
        if self.adapter_init == "pissa" and others:
            raise ValueError(f"adapter_init='pissa' cannot be combined with {others[0]}: set one of them back")
        return self
