"""Write random passwords into `secrets/` and the stack's `.env`, where they are missing: `make secrets`.

The folder is for its owner alone (0700). The files in it are readable (0444) because the engine shows them inside the
containers as they are, to processes that run as other users than their owner.
"""

import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path

_BYTES = 24
_SETTINGS = """\
# Settings of every codelupe service of the stack: any of README's "Configuration", a line each, without quotes.
# `docker compose up -d` takes them up. Profile, host and database are decided by .env and the compose file.
# CODELUPE_THRESHOLD_ROWS=1000
# CODELUPE_CHECK_INTERVAL_S=300
# CODELUPE_TRAIN_WINDOWS=mon-fri 22:00-06:00, sat-sun
# CODELUPE_QUIET_HOURS=mon-fri 08:00-18:00
# CODELUPE_TIME_ZONE=Europe/Berlin
# CODELUPE_MAX_AGE_HOURS=72
# CODELUPE_WATCH=owner/name
# CODELUPE_WATCH_FILES=50
# CODELUPE_MIN_QUALITY=70
# CODELUPE_LANGUAGES=python, go
"""


def write_missing(folder: Path) -> list[Path]:
    """Write what is missing below `folder`, the checkout; return the files written. What is there is kept."""
    place = folder / "secrets"
    place.mkdir(mode=0o700, exist_ok=True)
    place.chmod(0o700)
    written = []
    password = place / "database_password"
    for name in (password.name, "grafana_password"):
        written += _write(place / name, secrets.token_hex(_BYTES))
    url = f"postgresql://codelupe:{password.read_text().strip()}@postgres:5432/codelupe"
    written += _write(place / "database_url", url)
    written += _write(place / "github_tokens", "")
    written += _write_token(place)
    written += _write(place / "settings.env", _SETTINGS, mode=0o644)
    # A profile of the compose file, by what this machine has.
    profile = "gpu" if shutil.which("nvidia-smi") else "cpu"
    settings = ("# The stack's settings; docs/deployment.md lists them.", "CODELUPE_SECRETS=./secrets")
    return written + _write(folder / ".env", "\n".join([*settings, f"COMPOSE_PROFILES={profile}"]), mode=0o644)


def _write_token(place: Path) -> list[Path]:
    """Write a token of the API that may do everything, and the line that says so, as `codelupe token create` would."""
    written = _write(place / "api_token", f"codelupe_{secrets.token_urlsafe(32)}")
    digest = hashlib.sha256((place / "api_token").read_text().strip().encode()).hexdigest()
    return written + _write(place / "api_tokens", f"operator read,train,models,sources,config {digest}")


def _write(file: Path, text: str, *, mode: int = 0o444) -> list[Path]:
    """Write a file that is not there yet; return it in a list, or nothing."""
    if file.exists():
        return []
    # Never for others, not even until the mode is set.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text if text.endswith("\n") or not text else text + "\n")
    file.chmod(mode)
    return [file]


if __name__ == "__main__":
    for path in write_missing(Path.cwd()):
        sys.stdout.write(f"written: {path}\n")
