"""How a process shows itself: address, ports, log level. One section of the settings."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class MonitoringSettings(BaseModel):
    """Where health, metrics and status are served, and how much is logged."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address that the ports below are bound to. `0.0.0.0` shows them to the network; the daemon needs a token then."""

    api_tokens_file: Path | None = None
    """File with names, scopes and hashes of the API's tokens (`codelupe token`); empty: `api_tokens` in the home."""

    api_token: SecretStr | None = None
    """Token with the scope `read` that `codelupe monitor` sends to a service on another machine."""

    daemon_port: int = Field(default=8090, ge=0, le=65535)
    """Port of the daemon's /health, /ready, /metrics and /status. 0 takes a free one."""

    ingest_port: int = Field(default=8091, ge=0, le=65535)
    """Port of ingest's /health, /ready, /metrics and /status, for all its workers. 0 takes a free one."""

    crawl_port: int = Field(default=8092, ge=0, le=65535)
    """Port of the crawler's /health, /ready, /metrics and /status. 0 takes a free one."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    progress_every_s: float = Field(default=10.0, gt=0)
    """Without a terminal: seconds between two progress lines of one task."""
