"""The limits a file is judged by, as plain values: no grammar is loaded to read a configuration."""

from dataclasses import dataclass

from sourcecode.languages import LANGUAGES


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file must keep to; the defaults are those of the configuration."""

    languages: tuple[str, ...] = LANGUAGES
    min_file_bytes: int = 50
    max_file_bytes: int = 262_144
    max_line_chars: int = 1000
    max_mean_line_chars: int = 110
    max_error_share: float = 0.05
    keep_tests: bool = False
    benchmark_list: str | None = None
    """File of hashes; None for the list that is shipped."""
