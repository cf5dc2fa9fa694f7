"""Is a file fit to learn from? One reason for each way it is not; path rules first, then the cheap, then the dear."""

import re
from dataclasses import dataclass, field

from tree_sitter import Tree

from sourcecode.contamination import find_benchmark
from sourcecode.encoded import find_encoded
from sourcecode.generated import find_generator_mark
from sourcecode.languages import detect_language
from sourcecode.limits import Limits
from sourcecode.paths import judge_path
from sourcecode.redaction import redact
from sourcecode.substance import find_lack_of_substance
from sourcecode.syntax import measure_errors

# Every reason that judge gives, in the order in which they are looked at.
REASONS = (
    "vendored",
    "test_fixture",
    "language",
    "test",
    "configuration",
    "generated",
    "minified",
    "too_large",
    "too_short",
    "binary",
    "lfs_pointer",
    "encoding",
    "bidi",
    "encoded",
    "secret",
    "nesting",
    "parse_memory",
    "parse_time",
    "syntax",
    "boilerplate",
    "data",
    "benchmark",
)

# Trojan Source (CVE-2021-42574): these make a text read in another order than it runs.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NUM_MEAN_LINES = 5  # the average line says nothing about a file of fewer
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SOURCE_MAP = re.compile(r"^//[#@] sourceMappingURL=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: accepted with language, text and tree, or the reason and, in words, the detail."""

    accepted: bool
    reason: str | None = None
    detail: str | None = None
    language: str | None = None
    text: str | None = None
    tree: Tree | None = None
    redacted: dict[str, int] = field(default_factory=dict)
    """How many e-mail addresses, IP addresses, keys and passwords of the text were replaced, by kind."""
    redactions: tuple[str, ...] = ()
    """Rule, line and hash prefix of each."""


def judge(path: str, data: bytes, limits: Limits, *, is_executable: bool = True) -> Verdict:
    """Judge a file by its path (parts separated by `/`), its bytes and, where it has no extension, its mode.

    The text of an accepted file is its UTF-8 without a byte order mark, its lines ended by newlines alone, with
    placeholders for what is private in it.
    """
    language = detect_language(path, data, languages=limits.languages)
    refusal = judge_path(path, limits, is_executable=is_executable) or _judge_language(language, limits)
    refusal = refusal or judge_size(len(data), limits)
    refusal = refusal or _judge_bytes(data)
    if refusal:
        return _refuse(refusal, language)
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        return _refuse(("encoding", f"not UTF-8 at byte {error.start}"), language)
    assert language is not None  # noqa: S101 - _judge_language
    return _judge_text(language, text, limits)


def judge_size(num_bytes: int, limits: Limits) -> tuple[str, str] | None:
    """Return (reason, detail) against a file by its size, or None: the gate before it is read."""
    if num_bytes > limits.max_file_bytes:
        return "too_large", f"{num_bytes} bytes, more than {limits.max_file_bytes}"
    if num_bytes < limits.min_file_bytes:
        return "too_short", f"{num_bytes} bytes, fewer than {limits.min_file_bytes}"
    return None


def decode(data: bytes) -> str:
    """Return the text of UTF-8 bytes, without byte order mark and carriage returns; raises UnicodeDecodeError."""
    return data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")


def _judge_bytes(data: bytes) -> tuple[str, str] | None:
    if b"\0" in data:
        return "binary", "contains NUL"
    return ("lfs_pointer", "its content is in Git LFS") if data.startswith(_LFS_POINTER) else None


def _judge_language(language: str | None, limits: Limits) -> tuple[str, str] | None:
    return None if language in limits.languages else ("language", language or "not recognised")


def _judge_text(language: str, text: str, limits: Limits) -> Verdict:
    refusal = _judge_lines(text, limits) or _judge_marks(text)
    if refusal:
        return _refuse(refusal, language)
    redaction = redact(language, text)
    if isinstance(redaction, str):
        return _refuse(("secret", redaction), language)
    tree = redaction.tree
    if isinstance(tree, str):
        return _refuse((tree, "the syntax tree could not be made"), language)
    error_share = measure_errors(tree) / len(redaction.text.encode())
    if error_share > limits.max_error_share:
        return _refuse(("syntax", f"{error_share:.0%} of the bytes are in syntax errors"), language)
    refusal = find_lack_of_substance(language, tree) or _judge_contamination(redaction.text, limits)
    if refusal:
        return _refuse(refusal, language)
    return Verdict(
        accepted=True,
        language=language,
        text=redaction.text,
        tree=tree,
        redacted=redaction.counts,
        redactions=redaction.places,
    )


def _judge_lines(text: str, limits: Limits) -> tuple[str, str] | None:
    longest = max(map(len, text.split("\n")))
    if longest > limits.max_line_chars:
        return "minified", f"a line of {longest} characters"
    num_lines = text.count("\n") + 1
    mean = len(text) / num_lines
    if num_lines >= _NUM_MEAN_LINES and mean > limits.max_mean_line_chars:
        return "minified", f"{mean:.0f} characters a line on average"
    return None


def _judge_marks(text: str) -> tuple[str, str] | None:
    if mark := find_generator_mark(text):
        return "generated", mark
    if "sourceMappingURL" in text and _SOURCE_MAP.search(text):
        return "generated", "has a source map"
    if not text.isascii() and (found := _BIDI.search(text)):
        return "bidi", f"U+{ord(found[0]):04X} at character {found.start()}"
    encoded = find_encoded(text)
    return ("encoded", encoded) if encoded else None


def _judge_contamination(text: str, limits: Limits) -> tuple[str, str] | None:
    known = find_benchmark(text, limits.benchmark_list)
    return ("benchmark", known) if known else None


def _refuse(refusal: tuple[str, str], language: str | None) -> Verdict:
    return Verdict(accepted=False, reason=refusal[0], detail=refusal[1], language=language)
