"""Do names tell what they stand for, and do they follow their language's convention?"""

import re
from collections.abc import Collection, Iterable, Sequence

# Short names that everybody reads: loop counters, coordinates, Go's receivers, the usual library handles.
_USUAL_WORDS = (
    "i j k n x y z e f s t r w b c p q a d h m ok id io os re db tx rx fd fs ip to is on in at by no up do go it vm ui"
    " fn cb ch wg mu op pk px ts js st ms ns us cp rw eq ne lt gt le ge _ __ self cls this super"
)
_USUAL = frozenset(_USUAL_WORDS.split())
_NUMBERED = re.compile(r"(?:[A-Za-z]{1,2}|(?:var|tmp|temp|foo|bar|baz|val|arg|data|test|func|name|item)_?)\d+\Z")
_EMPTY_WORDS = frozenset({"foo", "bar", "baz", "tmp", "temp", "asdf", "stuff", "thing", "blah", "xxx", "abc", "aaa"})
_SNAKE = re.compile(r"_*[a-z0-9]+(?:_[a-z0-9]+)*_*\Z|_+\Z")
_CAMEL = re.compile(r"[_$]*[a-z][A-Za-z0-9]*\$?\Z")
_GO = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z|_\Z|(?:Test|Benchmark|Example|Fuzz)\w*\Z")
_PASCAL = re.compile(r"_*[A-Z][A-Za-z0-9]*\Z")
_FUNCTION_STYLES = {
    "python": _SNAKE,
    "rust": _SNAKE,
    "go": _GO,
    "dart": _CAMEL,
    "javascript": _CAMEL,
    "typescript": _CAMEL,
}
_ANY_STYLE = re.compile(r"\w+")
_LETTERS_OF_A_WORD = 5
_HALF_TELLING = 0.6


# What is written like a name and was chosen by nobody.
_KEYWORDS = {
    "python": "and as assert async await break case class continue def del elif else except finally for from global if"
    " import in is lambda match nonlocal not or pass raise return try while with yield",
    "go": "break case chan const continue default defer else fallthrough for func go goto if import interface map"
    " package range return select struct switch type var",
    "rust": "as async await break const continue crate dyn else enum extern fn for if impl in let loop match mod move"
    " mut pub ref return self static struct super trait true false type union unsafe use where while yield bool char"
    " str u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64",
    "javascript": "as async await break case catch class const continue debugger default delete do else export extends"
    " false finally for from function get if import in instanceof let new null of return set static super switch this"
    " throw true try typeof undefined var void while with yield",
    "dart": "abstract as assert async await base break case catch class const continue covariant default deferred do"
    " else enum export extends extension external factory false final finally for get hide if implements import in"
    " interface is late library mixin new null on operator part required rethrow return sealed set show static super"
    " switch sync this throw true try typedef var void when while with yield",
}
_KEYWORDS["typescript"] = (
    f"{_KEYWORDS['javascript']} abstract any asserts boolean declare enum implements infer interface is keyof module"
    " namespace never number object override private protected public readonly satisfies string symbol type unknown"
)
_RESERVED = {language: frozenset(words.split()) for language, words in _KEYWORDS.items()}
_TO_WORDS = bytes(byte if byte >= 0x80 or chr(byte).isalnum() or chr(byte) in "_$" else ord(" ") for byte in range(256))
_DIGITS = frozenset("0123456789")
_MAX_RATED = 1 << 16


def find_names(language: str, code: bytes) -> set[str]:
    """Return the different names in code without comments and strings, less the language's own words."""
    # A name beyond ASCII may hold what str.split takes for a blank.
    words = {word.decode("utf-8", "replace") for word in set(code.translate(_TO_WORDS).split())}
    words -= _RESERVED.get(language, frozenset())
    return {word for word in words if word[0] not in _DIGITS}


def rate_names(names: Collection[str]) -> tuple[float, int]:
    """Return how telling the different names are on average (0 to 1), and how many there are."""
    if len(_RATINGS) > _MAX_RATED:
        _RATINGS.clear()
    ratings = [_RATINGS[name] for name in names if name not in _USUAL]
    # A file of nothing but x, y and n is not well named either.
    num_usual = len(names) - len(ratings)
    ratings.extend([_HALF_TELLING] * max(0, num_usual - len(ratings) // 2))
    return (sum(ratings) / len(ratings) if ratings else 0.0), len(names)


def rate_conventions(language: str, functions: Sequence[str], types: Sequence[str]) -> float:
    """Return the share of function and type names in their language's style; 1 without any."""
    style = _FUNCTION_STYLES.get(language, _ANY_STYLE)
    fits = [bool(style.match(name) or _is_dunder(name)) for name in functions]
    # A component of a user interface is a function that is named like a type.
    if language in ("javascript", "typescript", "dart"):
        fits = [fit or bool(_PASCAL.match(name)) for fit, name in zip(fits, functions, strict=True)]
    fits.extend(_fits_type(language, name) for name in types)
    return _share_of(fits)


class _Ratings(dict[str, float]):
    """How telling names are that were met before: most of a file's names are, and a look here is all they cost."""

    def __missing__(self, name: str) -> float:
        self[name] = rating = _rate(name)
        return rating


_RATINGS = _Ratings()


def _rate(name: str) -> float:
    bare = name.strip("_$#")
    if not bare or bare.lower() in _EMPTY_WORDS or _NUMBERED.match(bare):
        return 0.0
    letters = sum(map(str.isalpha, bare))
    return min(1.0, max(0, letters - 1) / (_LETTERS_OF_A_WORD - 1))


def _fits_type(language: str, name: str) -> bool:
    return bool(_PASCAL.match(name)) or (language == "go" and bool(_GO.match(name)))


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _share_of(fits: Iterable[bool]) -> float:
    answers = list(fits)
    return sum(answers) / len(answers) if answers else 1.0
