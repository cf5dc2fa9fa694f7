"""What the tests of ingest share: accepted code by name, git as alice, settings for small sources."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ingest.config import IngestSettings
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings

GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "alice",
    "GIT_AUTHOR_EMAIL": "alice@example.org",
    "GIT_COMMITTER_NAME": "alice",
    "GIT_COMMITTER_EMAIL": "alice@example.org",
    "PATH": os.environ["PATH"],
}
# Everything is trained on: where a file falls depends on the path of the test's folder.
SETTINGS = IngestSettings(
    ingest_workers=1,
    min_units=3,
    retry_delay_s=0,
    poll_interval_s=0.05,
    batch_rows=3,
    train_share=1,
    validation_share=0,
)


def make_code(name: str) -> str:
    """Return a Python module that is accepted, different for each name."""
    return (
        f'"""The module {name}."""\n\n\ndef greet_{name}(person: str) -> str:\n'
        f'    """Greet."""\n    return f"{name} {{person}}"\n'
    )


def git(folder: Path, *command: str, data: bytes | None = None) -> str:
    """Run git as alice."""
    done = subprocess.run(["git", *command], cwd=folder, env=GIT, check=True, capture_output=True, input=data)
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Settings:
    """The sections that the commands need."""

    home: Path
    database: DatabaseSettings
    monitoring: MonitoringSettings
    ingest: IngestSettings
