"""Settings of the database section."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


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

    @field_validator("database_url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url.get_secret_value())
            is_valid = parts.scheme in _SCHEMES and (parts.port or 1) > 0
        except ValueError:
            is_valid = False
        if not is_valid:
            # Without the value: it carries a password.
            raise ValueError("not a PostgreSQL URL: give postgresql://user:password@host:port/database")
        return url
