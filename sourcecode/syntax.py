"""Syntax trees of hostile input, and where a file may be cut: everything here ends in bounded time and memory."""

import re
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from tree_sitter import Node, Parser, Point, Tree

from sourcecode.grammars import Role, grammar_of, load_grammar

MAX_PARSE_BYTES = 16 * 1024 * 1024
# Brackets open at once. A parser's work can grow with the square of it: 1,000,000 took more than 25 s, 64,000 0.1 s.
MAX_NESTING = 2_000
# Nodes in nodes: real code stays below 1,000. 60,000 arrow functions in one another took minutes to measure.
MAX_TREE_DEPTH = 2_000
# 256 kB of real code take 0.03 s; what takes 100 times as long is quadratic on purpose (`/*` in Dart, r#" in Rust).
# Of this thread's own time: a busy machine must not decide what is accepted.
MAX_PARSE_S = 2.0
# 256 kB of real code take up to 36 MB; the same bombs take 110 MB a second, and the child that hits its own limit in
# the parser dies, and with it the visit.
MAX_PARSE_MEMORY = 96 * 1024 * 1024

_CHUNK_BYTES = 1 << 16
_LOOK_S = 0.02
_PAGE_BYTES = resource.getpagesize()
_NOT_BRACKETS = bytes(set(range(256)) - set(b"()[]{}"))
_OPENING = (b"(", b"[", b"{")
_STEPS = {ord(char): 1 if char in "([{" else -1 for char in "()[]{}"}
# What may follow a statement on its line: a separator, then a comment.
_REST_OF_LINE = re.compile(rb"[ \t]*[;,]?[ \t]*(?:(?://|#)[^\n]*)?(?:\n|\Z)")
_EXPRESSION_FIELDS = frozenset({"right", "value", "condition"})
_RETURNS = frozenset({"return_statement", "return_expression"})


def parse(language: str, text: str) -> Tree | str:
    """Return the tree of a text in one of LANGUAGES, or why there is none.

    That is `too_large`, `nesting`, `parse_time` or `parse_memory`. Byte offsets in the tree are those of the text's
    UTF-8 form.
    """
    data = text.encode()
    if len(data) > MAX_PARSE_BYTES:
        return "too_large"
    if sum(map(data.count, _OPENING)) > MAX_NESTING and count_nesting(data) > MAX_NESTING:
        return "nesting"
    until = time.thread_time() + MAX_PARSE_S
    first, second = _dialects(language, data)
    tree = _parse(first, data, until)
    if isinstance(tree, Tree) and _is_deep(tree):
        return "nesting"
    if second and isinstance(tree, Tree) and tree.root_node.has_error:
        return _fewer_errors(tree, _parse(second, data, until))
    return tree


def count_nesting(data: bytes) -> int:
    """Return how many brackets are open at once, at most; brackets in strings count too."""
    brackets = data.translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def measure_errors(tree: Tree) -> int:
    """Return how many bytes lie in syntax errors; a missing token counts as one."""
    if not tree.root_node.has_error:
        return 0
    num_bytes = 0
    pending = [tree.root_node]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            num_bytes += max(1, node.end_byte - node.start_byte)
        elif node.has_error:
            pending.extend(node.children)
    return num_bytes


def top_level_spans(language: str, text: str) -> list[tuple[int, int]]:
    """Return the character spans of the top-level statements and definitions, comments left out."""
    tree = parse(language, text)
    if isinstance(tree, str):
        return []
    grammar = grammar_of(tree, language)
    nodes = [node for node in tree.root_node.named_children if not grammar.role(node) & Role.COMMENT]
    return _char_spans(text.encode(), [(node.start_byte, node.end_byte) for node in nodes])


def cut_points(language: str, text: str) -> list[int]:
    """Return, sorted, the character offsets where a line begins after a whole statement or definition of any depth.

    What stands before such an offset ends with a newline; the ends of the text are not among them.
    """
    tree = parse(language, text)
    if isinstance(tree, str):
        return []
    data = text.encode()
    ends = set()
    for node in _members(tree, language):
        rest = _REST_OF_LINE.match(data, node.end_byte)
        if data[node.end_byte - 1 : node.end_byte] == b"\n":
            ends.add(node.end_byte)
        elif rest:
            ends.add(rest.end())
    return _char_offsets(data, sorted(ends - {0, len(data)}))


def holes(language: str, text: str) -> list[tuple[int, int]]:
    """Return, sorted, the character spans of whole syntax nodes that a person would fill in.

    Statements and definitions, function bodies, call arguments, and the expressions that are assigned, returned or
    tested. Nodes with syntax errors are left out. Spans may contain one another.
    """
    tree = parse(language, text)
    if isinstance(tree, str):
        return []
    spans = {(node.start_byte, node.end_byte) for node in _fillable(tree, language)}
    return _char_spans(text.encode(), sorted(span for span in spans if span[1] > span[0]))


def walk(tree: Tree) -> Iterator[tuple[Node, int, str | None]]:
    """Yield every named node in the order of the text, with its depth and its field in its parent; no recursion."""
    cursor = tree.walk()
    depth = 0
    while True:
        node = cursor.node
        if node is not None and node.is_named:
            yield node, depth, cursor.field_name
        if cursor.goto_first_child():
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            depth -= 1


def _dialects(language: str, data: bytes) -> tuple[str, str | None]:
    """Return the grammar to try first, and the one to try when a text has errors in it: TypeScript is two languages."""
    if language != "typescript":
        return language, None
    return ("tsx", "typescript") if b"</" in data or b"/>" in data else ("typescript", "tsx")


def _parse(grammar: str, data: bytes, until: float) -> Tree | str:
    watch = _Watch(until)

    def read(offset: int, _: Point) -> bytes:
        return data[offset : offset + _CHUNK_BYTES]

    try:
        # The limit works in this form alone: with bytes as the source the callback is ignored.
        return Parser(load_grammar(grammar).language).parse(read, progress_callback=watch.must_end)
    except ValueError:
        return watch.reason


class _Watch:
    """The limits of one parse, looked at as it goes."""

    def __init__(self, until: float) -> None:
        self.reason = "parse_time"
        self._until, self._looked_at = until, time.thread_time()
        self._most_bytes: int | None = None

    def must_end(self, _offset: int, _has_error: bool) -> bool:
        now = time.thread_time()
        if now > self._until:
            return True
        # Most files are done before the first look.
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            if self._takes_too_much():
                self.reason = "parse_memory"
                return True
        return False

    def _takes_too_much(self) -> bool:
        used = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
        if self._most_bytes is None:
            self._most_bytes = used + MAX_PARSE_MEMORY
        return used > self._most_bytes


def _is_deep(tree: Tree) -> bool:
    """Say whether nodes lie deeper in one another than MAX_TREE_DEPTH, which takes no bracket.

    Of two nodes with n nodes between them in the order of the text one lies at most n deeper than the other, so that a
    look at every n-th node shows that none of a tree lies deep.
    """
    cursor, step = tree.walk(), MAX_TREE_DEPTH // 2
    for number in range(0, tree.root_node.descendant_count, step):
        cursor.goto_descendant(number)
        if cursor.depth > MAX_TREE_DEPTH - step:
            return _has_deep_node(tree)
    return False


def _has_deep_node(tree: Tree) -> bool:
    cursor = tree.walk()
    depth = 0
    while depth <= MAX_TREE_DEPTH:
        if cursor.goto_first_child():
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return False
            depth -= 1
    return True


def _fewer_errors(tree: Tree, other: Tree | str) -> Tree:
    if isinstance(other, str) or measure_errors(other) >= measure_errors(tree):
        return tree
    return other


def _members(tree: Tree, language: str) -> Iterator[Node]:
    """Yield the statements and members of every sequence, but no comments, annotations and heads of what follows."""
    skipped = Role.COMMENT | Role.DECORATION | Role.HEAD
    for node, role, above, _, _ in _walk_roles(tree, language):
        if above & Role.CONTAINER and not role & skipped and not node.is_error:
            yield node


def _fillable(tree: Tree, language: str) -> Iterator[Node]:
    skipped = Role.COMMENT | Role.DECORATION | Role.HEAD
    for node, role, above, above_kind, field in _walk_roles(tree, language):
        if role & skipped or node.has_error:
            continue
        is_body = field == "body" and above & (Role.FUNCTION | Role.TYPE)
        is_part = above & (Role.CONTAINER | Role.ARGUMENTS) or field in _EXPRESSION_FIELDS or above_kind in _RETURNS
        if is_body or is_part:
            yield node


def _walk_roles(tree: Tree, language: str) -> Iterator[tuple[Node, int, int, str, str | None]]:
    """Yield every named node with its roles, its parent's roles and kind, and its field."""
    grammar = grammar_of(tree, language)
    path: list[tuple[int, str]] = [(0, "")]
    for node, depth, field in walk(tree):
        role = grammar.role(node)
        del path[depth + 1 :]
        above, above_kind = path[-1]
        path.extend([path[-1]] * (depth + 1 - len(path)))
        path.append((role, node.type))
        yield node, role, above, above_kind, field


def _char_spans(data: bytes, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    offsets = sorted({offset for span in spans for offset in span})
    chars = dict(zip(offsets, _char_offsets(data, offsets), strict=True))
    return [(chars[start], chars[end]) for start, end in spans]


def _char_offsets(data: bytes, offsets: Sequence[int]) -> list[int]:
    """Turn ascending byte offsets into character offsets, in one pass over the data."""
    if data.isascii():
        return list(offsets)
    chars, num_chars, last = [], 0, 0
    for offset in offsets:
        num_chars += len(data[last:offset].decode("utf-8", "ignore"))
        chars.append(num_chars)
        last = offset
    return chars
