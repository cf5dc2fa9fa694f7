"""Settings of the database section."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class DatabaseSettings(BaseModel):
    """Where the tables live, and how carefully to use them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    database_url: SecretStr | None = None
    """PostgreSQL server to use (`postgresql://user:password@host/database`); empty: the embedded one in the home."""
    postgres_bin: Path | None = None
    """Folder with `postgres` and `initdb` for the embedded server; empty: the binaries installed by pip."""
    pool_size: int = Field(5, ge=1, le=5)
    """Connections that one process opens at most."""
    statement_timeout_s: int = Field(60, ge=1)
    """Seconds after which the server cancels a statement."""
