"""Redaction: placeholders for what is private in a text, in strings and comments, so that the text still parses."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tree_sitter import Tree

from sourcecode.personal import find_personal
from sourcecode.secrets import Secret, describe, find_secrets, keep_apart
from sourcecode.syntax import parse

# Nodes of text. In code proper, what looks like an address is an expression.
_TEXT_NODES = ("string", "comment", "template", "regex", "char", "ERROR")
_MARKUP_NODE = "jsx_text"


# Beside a placeholder may stand what was no whole value before; real files are done after one round.
_MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Redaction:
    """A text without what was private in it, and its syntax tree or why there is none."""

    text: str
    tree: Tree | str
    counts: dict[str, int] = field(default_factory=dict)
    """How many of each kind: email, ip, key, password."""
    places: tuple[str, ...] = ()
    """Rule, line and hash prefix of each."""


def find_private(data: bytes) -> list[Secret]:
    """Return what is secret or personal in the bytes of a text, in its order."""
    return keep_apart([*find_secrets(data), *find_personal(data)])


def redact(language: str, text: str) -> Redaction | str:
    """Replace what is private in a text; return in words the secret for which it is dropped.

    Doing it again changes nothing.
    """
    data, counts = text.encode(), Counter[str]()
    places: list[str] = []
    for _ in range(_MAX_ROUNDS):
        found = find_private(data)
        if drops := [secret for secret in found if secret.placeholder is None]:
            return describe(data, drops[0])
        tree = parse(language, text)
        chosen = [] if isinstance(tree, str) else [*_choose(tree, found)]
        if not chosen:
            break
        places += [describe(data, secret) for secret, _ in chosen]
        counts.update((secret.placeholder or "").strip("<>").lower() for secret, _ in chosen)
        data = _replace(data, chosen)
        text = data.decode()
    return Redaction(text, parse(language, text) if chosen else tree, dict(counts), tuple(places))


def _choose(tree: Tree, found: Iterable[Secret]) -> Iterator[tuple[Secret, str]]:
    """Yield each secret that stands in text and not in code, with what is put there."""
    for secret in found:
        node = tree.root_node.descendant_for_byte_range(secret.start, secret.end)
        if node is None or secret.placeholder is None:
            continue
        if node.type == _MARKUP_NODE:  # between tags `<` would open one more
            yield secret, f'{{"{secret.placeholder}"}}'
        elif any(kind in node.type for kind in _TEXT_NODES):
            yield secret, secret.placeholder


def _replace(data: bytes, chosen: Iterable[tuple[Secret, str]]) -> bytes:
    parts: list[bytes] = []
    end = 0
    for secret, placeholder in chosen:
        parts += [data[end : secret.start], placeholder.encode()]
        end = secret.end
    return b"".join([*parts, data[end:]])
