"""What a configuration allows and hardly means: `codelupe config check` warns of it. Pure."""

import math

from daemon.config import TrainingSettings

_USUAL_SCALE = 4.0  # of an adapter's product; 2 is common


def doubts_of(settings: TrainingSettings) -> list[str]:
    """Return what looks like a mistake, in words that say what to set."""
    scale = settings.lora_alpha / math.sqrt(settings.lora_rank)
    if not settings.rslora or scale <= _USUAL_SCALE:
        return []
    alpha = round(2 * math.sqrt(settings.lora_rank))
    doubt = (
        f"rslora multiplies the adapter by alpha / √rank = {scale:.3g}; lora_alpha={settings.lora_alpha} looks chosen "
        f"for alpha / rank: set CODELUPE_LORA_ALPHA={alpha} for a scale of 2"
    )
    return [doubt]
