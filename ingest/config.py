"""The [ingest] section of the configuration, and what the ingest commands need of the whole of it."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from sourcecode.further import FURTHER, is_installed
from sourcecode.languages import LANGUAGES
from sourcecode.limits import Limits

if TYPE_CHECKING:
    from monitoring.config import MonitoringSettings
    from schema.config import DatabaseSettings

# No condition but to name the author and keep the text: those of bigcode's and SPDX's permissive lists that are in use.
PERMISSIVE = (
    *("0BSD", "AFL-3.0", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "BSD-1-Clause", "BSD-2-Clause"),
    *("BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0", "BlueOak-1.0.0", "CC-BY-4.0", "CC0-1.0"),
    *("HPND", "ISC", "MIT", "MIT-0", "MS-PL", "MulanPSL-2.0", "NCSA", "PSF-2.0", "PostgreSQL", "Python-2.0", "UPL-1.0"),
    *("Unicode-3.0", "Unlicense", "W3C", "WTFPL", "X11", "Zlib", "curl"),
)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]+")


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


class IngestSettings(BaseModel):
    """What is fetched, what is kept of it, and how much it may cost."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=True
    )

    ingest_workers: int = Field(default_factory=_num_cores, ge=1, le=256)
    """Repositories handled at the same time, and processes that judge a large one (number; default: the cores)."""
    languages: tuple[str, ...] = LANGUAGES
    """Languages that are kept, others are refused as `language`; further ones need their grammar's package."""
    min_file_bytes: int = Field(default=50, ge=0)
    """A smaller file is refused with the reason `too_short` (bytes)."""
    max_file_bytes: int = Field(default=262_144, ge=1, le=16_777_216)
    """A larger file is refused with the reason `too_large`; larger blobs are not even fetched (bytes)."""
    max_line_chars: int = Field(default=1000, ge=80)
    """A file with a longer line is refused with the reason `minified` (characters)."""
    max_mean_line_chars: int = Field(default=110, ge=40)
    """A file with a longer average line is refused with the reason `minified` (characters)."""
    max_error_share: float = Field(default=0.05, ge=0, le=1)
    """A file whose syntax errors cover a larger share of it is refused with the reason `syntax` (share of bytes)."""
    keep_tests: bool = False
    """Keep test files too; otherwise they are refused with the reason `test` (true or false)."""
    benchmark_list: Path | None = None
    """File of hashes of benchmark tasks; files that hold one are refused as `benchmark` (default: HumanEval, MBPP)."""
    near_duplicate_threshold: float = Field(default=0.7, ge=0.5, le=1)
    """Texts whose sets of five-token shingles are this similar are near-duplicates (Jaccard, 0.5 to 1)."""
    train_share: float = Field(default=0.95, gt=0, le=1)
    """Share of the split units that is trained on (share; the rest is held out)."""
    validation_share: float = Field(default=0.025, ge=0, lt=1)
    """Share of the split units used for early stopping (share; what is left over is the test split)."""
    min_units: int = Field(default=40, ge=1)
    """Sources are split by repository, top entry, directory or file: the coarsest with this many units (number)."""
    clone_timeout_s: int = Field(default=600, ge=1)
    """A clone that takes longer is killed and tried again later (seconds)."""
    visit_timeout_s: int = Field(default=3600, ge=1)
    """Wall clock of one whole visit of a repository, clone included (seconds)."""
    clone_max_bytes: int = Field(default=2_147_483_648, ge=1_048_576)
    """The largest file that the child process may write, so the largest pack that is cloned (bytes)."""
    clones_max_bytes: int = Field(default=21_474_836_480, ge=1_048_576)
    """All clones of this machine's workers together; above it the newest one is given back and waits (bytes)."""
    child_memory_bytes: int = Field(default=536_870_912, ge=268_435_456)
    """Memory of the processes that handle a repository, together with its git (bytes)."""
    child_cpu_s: int = Field(default=1800, ge=1)
    """Processor time of each process that handles a repository, and of each of its git processes (seconds)."""
    max_entries: int = Field(default=200_000, ge=1)
    """A repository or folder with more entries is refused with the reason `too_many_files` (number)."""
    batch_rows: int = Field(default=200, ge=1, le=10_000)
    """Judged files that are saved in one transaction (rows)."""
    lease_s: int = Field(default=120, ge=3)
    """How long a claimed repository stays ours without a sign of life (seconds)."""
    rescan_interval_s: int = Field(default=86_400, ge=0)
    """Time from one visit of a source that you named to the next, dead and missing ones too; 0 for never (seconds)."""
    judged_again_per_hour: int = Field(default=60, ge=0, le=3600)
    """Sources that are read again in an hour because languages, filters, policy or scorer changed; 0: none (number)."""
    max_attempts: int = Field(default=5, ge=1)
    """Failed visits of a repository before it is given up and marked dead (number)."""
    retry_delay_s: int = Field(default=30, ge=0)
    """Wait after the first failed visit; doubled after each further one, up to a day (seconds)."""
    retention_days: int = Field(default=30, ge=0)
    """Contents of files that have been excluded for so long are dropped, once a day; their rows stay (days)."""
    poll_interval_s: float = Field(default=2.0, gt=0)
    """How often an idle worker looks at the queue (seconds)."""
    licence_policy: Literal["permissive", "any"] = "permissive"
    """With `permissive` a file that the crawler found must be under allowed_licences, or is refused as `licence`."""
    allowed_licences: tuple[str, ...] = PERMISSIVE
    """SPDX ids; of `A OR B` one must be among them, of `A AND B` both, and a file without a licence is not allowed."""
    github_api_url: str = "https://api.github.com"
    """GitHub's REST API that the crawler asks; a GitHub Enterprise server's is `https://HOST/api/v3`."""
    github_tokens: tuple[SecretStr, ...] = ()
    """Tokens for that API, without scope, each of another account. Without any: 10 searches a minute, not 30."""
    github_timeout_s: float = Field(default=20.0, gt=0)
    """A request to the API that takes longer is tried again (seconds)."""
    min_stars: int = Field(default=10, ge=0)
    """The crawler looks at repositories with this many stars (number)."""
    min_forks: int = Field(default=3, ge=0)
    """The crawler looks at repositories with this many forks (number)."""
    min_repository_score: float = Field(default=50.0, ge=0, le=100)
    """A found repository with a lower score is refused, for what it seems to be or as `score` (0 to 100)."""
    min_repository_age_days: int = Field(default=30, ge=0)
    """A found repository that is younger is refused as `young` until it is found again (days)."""
    min_owner_age_days: int = Field(default=90, ge=0)
    """A found repository whose owner's account is younger is refused as `young_owner`; 0 asks for no account (days)."""
    max_repository_kb: int = Field(default=1_000_000, ge=1)
    """A found repository that is larger, as the API says, is refused as `too_big` (kilobytes)."""
    force_include: tuple[str, ...] = ()
    """Found repositories that are taken whatever their score, stars, age and owner: globs over owner/name."""
    force_exclude: tuple[str, ...] = ()
    """Found repositories that are refused as `force_exclude`: globs over owner/name."""
    opt_out: tuple[Path, ...] = ()
    """Files with owner/name or globs, one a line: never taken, and taken out if stored; read again when they change."""
    crawl_interval_h: float = Field(default=24.0, gt=0)
    """With `--watch`: time from the start of one crawl to the next (hours)."""
    crawl_overlap_days: int = Field(default=1, ge=0)
    """A crawl asks again for what was pushed so long before the last one began (days)."""
    full_crawl_days: int = Field(default=30, ge=1)
    """Crawls ask for pushes alone; after this time one asks for everything again, for new stars too (days)."""

    @field_validator("github_api_url")
    @classmethod
    def _check_api_url(cls, url: str) -> str:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if not is_safe or not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("not the address of an API: give https://host/path (http only on this machine)")
        return url.rstrip("/")

    @field_validator("allowed_licences")
    @classmethod
    def _check_licences(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names == PERMISSIVE:
            return names
        # Reading SPDX's list takes a tenth of a second: only where it is needed.
        from license_expression import get_spdx_licensing

        unknown = sorted(set(names) - get_spdx_licensing().known_symbols.keys())
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no SPDX id; see https://spdx.org/licenses")
        return names

    @field_validator("github_tokens", mode="after")
    @classmethod
    def _part_tokens(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Take several tokens from one text, as a secret's file holds them: a line each."""
        texts = [text for token in tokens for text in token.get_secret_value().split()]
        if not all(_TOKEN.fullmatch(text) for text in texts):
            raise ValueError("a token has characters that no token has: give plain tokens, with commas in between")
        return tuple(SecretStr(text) for text in dict.fromkeys(texts))

    @field_validator("benchmark_list")
    @classmethod
    def _check_benchmark_list(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_file():
            raise ValueError(f"{file}: no such file; make it with: codelupe ingest benchmark-list FILE… --output FILE")
        return file

    @model_validator(mode="after")
    def _check_shares(self) -> "IngestSettings":
        if self.train_share + self.validation_share > 1:
            raise ValueError("train_share + validation_share is more than 1: lower one of them")
        further = sorted(set(self.languages) - set(LANGUAGES))
        if unknown := [name for name in further if name not in FURTHER]:
            known = ", ".join((*LANGUAGES, *FURTHER))
            raise ValueError(f"languages: {', '.join(unknown)} unknown; choose from {known}")
        if missing := [name for name in further if not is_installed(name)]:
            packages = " ".join(FURTHER[name].package for name in missing)
            raise ValueError(f"languages: no grammar for {', '.join(missing)}; pip install {packages}")
        return self

    @property
    def limits(self) -> Limits:
        """Return the part of the settings by which one file is judged."""
        return Limits(
            languages=self.languages,
            min_file_bytes=self.min_file_bytes,
            max_file_bytes=self.max_file_bytes,
            max_line_chars=self.max_line_chars,
            max_mean_line_chars=self.max_mean_line_chars,
            max_error_share=self.max_error_share,
            keep_tests=self.keep_tests,
            benchmark_list=str(self.benchmark_list) if self.benchmark_list else None,
        )


class Settings(Protocol):
    """The part of the configuration that the ingest commands read."""

    @property
    def home(self) -> Path:
        """The folder of all data."""

    @property
    def database(self) -> "DatabaseSettings":
        """Where PostgreSQL is."""

    @property
    def monitoring(self) -> "MonitoringSettings":
        """Ports and logs."""

    @property
    def ingest(self) -> IngestSettings:
        """This package's section."""
