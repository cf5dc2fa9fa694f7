"""What a query finds in a syntax tree: functions, declarations, comments, names. Numbers only, no judgement."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from tree_sitter import Node, QueryCursor, Tree

from sourcecode.blanks import Span, blank
from sourcecode.grammars import Grammar, Role, grammar_of


@dataclass(slots=True)
class Function:
    """A function or, once per file, what stands outside of all functions.

    Its lines are those without comments, those of inner functions among them.
    """

    name: str = ""
    num_lines: int = 0
    num_branches: int = 0
    num_parameters: int = 0
    max_nesting: int = 0


@dataclass(slots=True)
class Measures:
    """Counts over one file; rows are line numbers from 0."""

    num_rows: int
    functions: list[Function] = field(default_factory=list)
    outside: Function = field(default_factory=Function)
    function_names: list[str] = field(default_factory=list)
    type_names: list[str] = field(default_factory=list)
    num_public: int = 0
    num_public_documented: int = 0
    comment_rows: set[int] = field(default_factory=set)
    num_trailing_comments: int = 0
    docstring_rows: set[int] = field(default_factory=set)
    num_code_rows: int = 0
    """Rows that are not all comment; blank ones count."""
    num_defined_rows: int = 0
    """Those of them that lie in functions and types."""
    has_header: bool = False
    comments: list[Span] = field(default_factory=list)
    code: bytes = b""
    """The bytes without comments and strings, with the same newlines at the same places."""


def measure(language: str, data: bytes, tree: Tree) -> Measures:
    """Return the measures of a file from its bytes and its tree."""
    return _Measurer(language, data, tree).run()


class _Measurer:
    """The state of one pass: what is open around the current node, and where documentation ended."""

    def __init__(self, language: str, data: bytes, tree: Tree) -> None:
        self.data, self.tree = data, tree
        self.is_python, self.is_dart = language == "python", language == "dart"
        self.are_types_bodies = language not in ("go", "rust")
        self.grammar: Grammar = grammar_of(tree, language)
        self.found = Measures(num_rows=data.count(b"\n") + 1)
        self.open: list[tuple[int, Function, int]] = []  # end byte, function, nesting around it
        self.nests: list[int] = []  # end bytes
        self.doc_end_rows: set[int] = set()
        self.decorated_rows: set[int] = set()
        self.defined: list[Span] = []  # first and last rows
        self.functions: list[tuple[Function, int, int]] = []  # function, first and last row
        self.head: Node | None = None  # Dart: the signature before a body

    def run(self) -> Measures:
        captures = QueryCursor(self.grammar.query).captures(self.tree.root_node)
        self._take_text(captures)
        receivers = {node.id for node in captures.get("receiver", ())}
        else_ifs = {node.id for node in captures.get("else_if", ())}
        roles = self.grammar.roles
        for start, end, node in _in_order(captures.get("node", ())):
            role = roles[node.kind_id] or Role.BRANCH
            self._close(start)
            if role & Role.BRANCH:
                self._function().num_branches += 1
            if role & Role.NESTING:
                if not (node.id in else_ifs and self.nests):
                    self._take_nesting(end)
            elif role & Role.PARAMETERS:
                if node.id not in receivers:
                    self._function().num_parameters += node.named_child_count
            elif role & ~Role.BRANCH:
                self._take_definition(node, role, end)
        self._sum_up()
        return self.found

    def _take_text(self, captures: Mapping[str, list[Node]]) -> None:
        """Take comments, strings and decorations, which the other nodes are judged by."""
        for node in captures.get("comment", ()):
            self._take_comment(node)
        for node in captures.get("docstring", ()):
            self._take_docstring(node)
        for node in captures.get("decoration", ()):
            self.decorated_rows.update(range(node.start_point.row, node.end_point.row + 1))
        strings = [(node.start_byte + 1, node.end_byte - 1) for node in captures.get("string", ())]
        texts = [(node.start_byte, node.end_byte) for node in captures.get("text", ())]
        self.found.code = blank(self.data, [*self.found.comments, *strings, *texts])

    def _take_comment(self, node: Node) -> None:
        start = node.start_byte
        self.found.comments.append((start, node.end_byte))
        first, column = node.start_point
        last = node.end_point.row - (node.end_point.column == 0)
        if not column or not self.data[start - column : start].strip():
            self.found.comment_rows.update(range(first, last + 1))
            self.doc_end_rows.add(last)
        else:
            self.found.num_trailing_comments += 1
        if first <= 1 and not self.data.startswith(b"#!", start):
            self.found.has_header = True

    def _take_docstring(self, node: Node) -> None:
        self.found.docstring_rows.update(range(node.start_point.row, node.end_point.row + 1))
        if node.parent is not None and node.parent.type == "module":
            self.found.has_header = self.found.has_header or node.start_point.row <= _header_rows(self.data)

    def _take_definition(self, node: Node, role: int, end: int) -> None:
        if role & Role.FUNCTION:
            self._take_function(node, end)
        elif role & Role.HEAD:
            self.head = node
        elif role & Role.TYPE:
            self._take_declaration(node, node.child_by_field_name("name"), self.found.type_names)
            if self.are_types_bodies:
                self.defined.append((node.start_point.row, node.end_point.row))
        else:
            self._take_declaration(node, node.child_by_field_name("name"), self.found.function_names)

    def _take_function(self, node: Node, end: int) -> None:
        start = self.head if self.is_dart and self.head is not None and node.type == "function_body" else node
        name = self._name_of(start)
        function = Function(name=self._text(name) if name is not None else "")
        if start is not node:
            function.num_parameters = _count_dart_parameters(start)
        self.open.append((end, function, len(self.nests)))
        self.found.functions.append(function)
        first, last = start.start_point.row, node.end_point.row
        self.functions.append((function, first, last))
        self.defined.append((first, last))
        if name is not None:
            self._take_declaration(start, name, self.found.function_names)

    def _take_nesting(self, end: int) -> None:
        around = self.open[-1][2] if self.open else 0
        self.nests.append(end)
        function = self._function()
        function.max_nesting = max(function.max_nesting, len(self.nests) - around)

    def _take_declaration(self, node: Node, name: Node | None, names: list[str]) -> None:
        if name is None:
            return
        text = self._text(name)
        names.append(text)
        if text.startswith("_") or len(self.open) > 1:
            return
        self.found.num_public += 1
        self.found.num_public_documented += self._is_documented(node)

    def _is_documented(self, node: Node) -> bool:
        if self.is_python:
            first = _first_child(node.child_by_field_name("body"))
            return first is not None and first.type == "expression_statement" and _is_string(_first_child(first))
        row = node.start_point.row - 1
        while row in self.decorated_rows:
            row -= 1
        return row in self.doc_end_rows

    def _name_of(self, node: Node) -> Node | None:
        name = node.child_by_field_name("name")
        if name is not None or not self.is_dart:
            parent = node.parent if name is None else None
            is_value = parent is not None and parent.type == "variable_declarator"
            return parent.child_by_field_name("name") if is_value and parent is not None else name
        signature = _first_child(node)
        return signature.child_by_field_name("name") if signature is not None else None

    def _function(self) -> Function:
        return self.open[-1][1] if self.open else self.found.outside

    def _close(self, at_byte: int) -> None:
        while self.open and self.open[-1][0] <= at_byte:
            self.open.pop()
        while self.nests and self.nests[-1] <= at_byte:
            self.nests.pop()

    def _sum_up(self) -> None:
        """Count rows of code. Those of comments do not count: a function is not too long by what explains it."""
        comments = sorted(self.found.comment_rows | self.found.docstring_rows)
        self.found.num_code_rows = self.found.num_rows - len(comments)
        self.found.num_defined_rows = sum(_count_rows(first, last, comments) for first, last in _join(self.defined))
        self.found.outside.num_lines = self.found.num_code_rows - self.found.num_defined_rows
        for function, first, last in self.functions:
            function.num_lines = _count_rows(first, last, comments)

    def _text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _in_order(nodes: Iterable[Node]) -> list[tuple[int, int, Node]]:
    """Return start byte, end byte and node in the order of the text, the outer before the inner."""
    places = [(node.start_byte, -node.end_byte, node) for node in nodes]
    places.sort(key=itemgetter(0, 1))
    return [(start, -end, node) for start, end, node in places]


def _count_rows(first: int, last: int, comments: Sequence[int]) -> int:
    return last + 1 - first - (bisect_right(comments, last) - bisect_left(comments, first))


def _join(spans: Iterable[Span]) -> list[Span]:
    """Return spans of rows, whose ends belong to them, as spans that have no row in common."""
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _first_child(node: Node | None) -> Node | None:
    return node.named_child(0) if node is not None and node.named_child_count else None


def _is_string(node: Node | None) -> bool:
    return node is not None and node.type == "string"


def _header_rows(data: bytes) -> int:
    """Return how many rows of comments and blanks open a Python file, before its docstring."""
    rows = 0
    for line in data.split(b"\n", 200)[:200]:
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
        rows += 1
    return rows


def _count_dart_parameters(head: Node) -> int:
    pending, count = [head], 0
    while pending:
        node = pending.pop()
        if node.type == "formal_parameter":
            count += 1
        else:
            pending.extend(node.named_children)
    return count
