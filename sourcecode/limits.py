"""The limits a file is judged by, as plain values: no grammar is loaded to read a configuration."""

from dataclasses import dataclass

from sourcecode.languages import LANGUAGES

# Raised whenever the rules of this package accept other files, or leave other text of them: then what is stored is
# judged again, a few sources an hour. The scorer has a version of its own.
RULES_VERSION = 2


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
