"""Where the daemon keeps things below CODELUPE_HOME. Nothing else spells these names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LinePaths:
    """The places of one line."""

    home: Path
    line: str

    @property
    def state_file(self) -> Path:
        """Derived state, for people and older tools (I3)."""
        return self.home / "state" / f"trainer_state_{self.line}.json"

    @property
    def models(self) -> Path:
        """Everything that was published for the line."""
        return self.home / "models" / self.line

    @property
    def base(self) -> Path:
        """The base model, where the line makes its own."""
        return self.models / "base"

    @property
    def base_cache(self) -> Path:
        """Quantised bases, of all lines; each can be made again, so nothing here needs a backup."""
        return self.home / "cache" / "bases"

    @property
    def versions(self) -> Path:
        """Immutable versions, one folder each (I4)."""
        return self.models / "versions"

    @property
    def current(self) -> Path:
        """Symlink to the version in service."""
        return self.models / "current"

    def version(self, number: int) -> Path:
        """Return the folder of a version."""
        return self.versions / f"{number:04d}"

    @property
    def jobs(self) -> Path:
        """Job directories, one for each run."""
        return self.home / "runs" / self.line

    def job(self, run: int) -> Path:
        """Return the job directory of a run."""
        return self.jobs / f"{run:04d}"
