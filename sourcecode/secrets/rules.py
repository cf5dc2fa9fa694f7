"""What a rule is, and the alphabets that the providers' formats are written with. Patterns are RE2 and bounded."""

from dataclasses import dataclass

ALNUM = "[A-Za-z0-9]"
LOWER = "[a-z0-9]"
UPPER = "[A-Z0-9]"
HEX = "[0-9a-f]"
ANY_HEX = "[0-9A-Fa-f]"
BASE64 = "[A-Za-z0-9+/]"
BASE64_URL = "[A-Za-z0-9_-]"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ANY_UUID = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"


@dataclass(frozen=True, slots=True)
class TokenRule:
    """A token that its own form gives away: one of the words, then the body. Found, it drops the file."""

    rule: str
    words: tuple[str, ...]
    """Case-sensitive; what the prefilter looks for."""
    body: str
    """RE2: what follows the word."""
    before: str = ""
    """RE2: what must stand before the word, as part of the value."""
    num_before: int = 0
    """Length of the longest text that `before` matches, in bytes."""
    min_entropy: float = 2.5
    """Bits per character of the whole value, at least: words and repetitions have less than random tokens."""
    is_mixed: bool = False
    """The value without its word holds digits and letters: for words that also begin ordinary names."""
    is_redacted: bool = False
    """Found, it is replaced by <KEY> and the file is kept: for forms that other things have too, and for test keys."""

    @property
    def pattern(self) -> str:
        """The whole value, as RE2."""
        return f"{self.before}(?:{'|'.join(map(quote, self.words))}){self.body}"


@dataclass(frozen=True, slots=True)
class VendorRule:
    """A value that gives nothing away but stands beside its vendor's name. Found, it is replaced by <KEY>."""

    rule: str
    names: tuple[str, ...]
    """In lower case; one is part of the name that the value is given to. A `_` in it may also be `-` or nothing."""
    value: str
    """RE2: all of the value."""
    min_entropy: float = 2.8


def token(
    rule: str,
    words: str,
    body: str,
    *,
    before: str = "",
    num_before: int = 0,
    min_entropy: float = 2.5,
    is_mixed: bool = False,
    is_redacted: bool = False,
) -> TokenRule:
    """Make a rule; words are separated by blanks."""
    return TokenRule(rule, tuple(words.split()), body, before, num_before, min_entropy, is_mixed, is_redacted)


def vendor(rule: str, names: str, value: str, *, min_entropy: float = 2.8) -> VendorRule:
    """Make a rule; names are separated by blanks."""
    return VendorRule(rule, tuple(names.split()), value, min_entropy)


def quote(word: str) -> str:
    """Return the word as RE2 that matches it and nothing else."""
    return "".join(letter if letter.isalnum() or letter == "_" else f"\\{letter}" for letter in word)
