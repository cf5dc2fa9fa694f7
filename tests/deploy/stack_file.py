"""docker-compose.yml as far as YAML alone goes: anchors and merges are done, variables are not."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
STACK: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
# They end when their work is done, so nothing is there to be asked.
ONE_SHOT = ("migrate", "sources-cpu")
