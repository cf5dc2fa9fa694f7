"""What one walk over a syntax tree finds: functions, declarations, comments, names. Numbers only, no judgement."""

import re
from collections import Counter
from dataclasses import dataclass, field

from tree_sitter import Node, Tree

from sourcecode.grammars import Grammar, Role, grammar_of
from sourcecode.syntax import walk

_LOGIC = frozenset({b"&&", b"||", b"??"})
_ELSE_IF = frozenset({"if_statement", "if_expression", "else_clause"})
_SPACE = re.compile(rb"\s+")


@dataclass(slots=True)
class Function:
    """A function or, once per file, what stands outside of all functions. Lines of inner functions count for them."""

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
    names: Counter[str] = field(default_factory=Counter)
    comment_rows: set[int] = field(default_factory=set)
    docstring_rows: set[int] = field(default_factory=set)
    defined_rows: set[int] = field(default_factory=set)
    comments: list[tuple[int, int]] = field(default_factory=list)  # byte spans
    strings: list[tuple[int, int]] = field(default_factory=list)  # byte spans
    has_header: bool = False


def measure(language: str, data: bytes, tree: Tree) -> Measures:
    """Return the measures of a file from its bytes and its tree."""
    return _Walker(language, data, tree).run()


class _Walker:
    """The state of one walk: what is open around the current node, and where documentation ended."""

    def __init__(self, language: str, data: bytes, tree: Tree) -> None:
        self.data, self.tree = data, tree
        self.is_python, self.is_go = language == "python", language == "go"
        self.is_rust, self.is_dart = language == "rust", language == "dart"
        self.grammar: Grammar = grammar_of(tree, language)
        self.found = Measures(num_rows=data.count(b"\n") + 1)
        self.open: list[tuple[int, Function, int]] = []  # end byte, function, nesting around it
        self.nests: list[tuple[int, str]] = []  # end byte, kind
        self.doc_end_rows: set[int] = set()
        self.decorated_rows: set[int] = set()
        self.head: Node | None = None  # Dart: the signature before a body

    def run(self) -> Measures:
        for node, _, where in walk(self.tree):
            role = self.grammar.role(node)
            if role == Role.NAME:
                self.found.names[self._text(node)] += 1
            elif role:
                self._take(node, role, where)
            elif node.type in ("binary_expression", "function_signature_item"):
                self._take_plain(node)
        self._attribute_rows()
        return self.found

    def _take(self, node: Node, role: int, where: str | None) -> None:
        if role & Role.COMMENT:
            self._take_comment(node)
        elif role & Role.STRING:
            self.found.strings.append((node.start_byte, node.end_byte))
        elif role & Role.DECORATION:
            self.decorated_rows.update(range(node.start_point.row, node.end_point.row + 1))
        elif role & Role.STATEMENT_STRING:
            self._take_docstring(node)
        if role & Role.HEAD:
            self.head = node
        if role & Role.TYPE:
            self._take_type(node)
        if role & Role.BRANCH:
            self._function_at(node).num_branches += 1
        if role & Role.NESTING:
            self._take_nesting(node, where)
        if role & Role.FUNCTION:
            self._take_function(node)
        if role & Role.PARAMETERS and where != "receiver":
            self._function_at(node).num_parameters += node.named_child_count

    def _take_plain(self, node: Node) -> None:
        if node.type == "binary_expression":
            operator = node.child_by_field_name("operator")
            if operator is not None and self.data[operator.start_byte : operator.end_byte] in _LOGIC:
                self._function_at(node).num_branches += 1
        else:
            self._take_declaration(node, node.child_by_field_name("name"), self.found.function_names)

    def _take_comment(self, node: Node) -> None:
        self.found.comments.append((node.start_byte, node.end_byte))
        last = node.end_point.row - (node.end_point.column == 0)
        line_start = node.start_byte - node.start_point.column
        if not self.data[line_start : node.start_byte].strip():
            self.found.comment_rows.update(range(node.start_point.row, last + 1))
            self.doc_end_rows.add(last)
        if node.start_point.row <= 1 and not self.data[node.start_byte :].startswith(b"#!"):
            self.found.has_header = True

    def _take_docstring(self, node: Node) -> None:
        if not _is_string(_first_child(node)) or node.named_child_count != 1:
            return
        self.found.docstring_rows.update(range(node.start_point.row, node.end_point.row + 1))
        if node.parent is not None and node.parent.type == "module":
            self.found.has_header = self.found.has_header or node.start_point.row <= _header_rows(self.data)

    def _take_type(self, node: Node) -> None:
        name = node.child_by_field_name("name")
        self._take_declaration(node, name, self.found.type_names)
        if not self.is_go and not self.is_rust:
            self.found.defined_rows.update(range(node.start_point.row, node.end_point.row + 1))

    def _take_function(self, node: Node) -> None:
        start = self.head if self.is_dart and self.head is not None and node.type == "function_body" else node
        name = self._name_of(start)
        function = Function(name=self._text(name) if name is not None else "")
        if self.is_dart and start is not node:
            function.num_parameters = _count_dart_parameters(start)
        self._close(node.start_byte)
        self.open.append((node.end_byte, function, len(self.nests)))
        self.found.functions.append(function)
        function.num_lines = node.end_point.row - start.start_point.row + 1
        self.found.defined_rows.update(range(start.start_point.row, node.end_point.row + 1))
        if name is not None:
            self._take_declaration(start, name, self.found.function_names)

    def _take_nesting(self, node: Node, where: str | None) -> None:
        self._close(node.start_byte)
        is_else_if = (bool(self.nests) and where == "alternative") or _is_else_if(node)
        if is_else_if:
            return
        around = self.open[-1][2] if self.open else 0
        self.nests.append((node.end_byte, node.type))
        function = self._function_at(node)
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
            parent = node.parent
            is_value = name is None and parent is not None and parent.type == "variable_declarator"
            return parent.child_by_field_name("name") if is_value and parent is not None else name
        signature = _first_child(node)
        return signature.child_by_field_name("name") if signature is not None else None

    def _function_at(self, node: Node) -> Function:
        self._close(node.start_byte)
        return self.open[-1][1] if self.open else self.found.outside

    def _close(self, at_byte: int) -> None:
        while self.open and self.open[-1][0] <= at_byte:
            self.open.pop()
        while self.nests and self.nests[-1][0] <= at_byte:
            self.nests.pop()

    def _attribute_rows(self) -> None:
        self.found.outside.num_lines = self.found.num_rows - len(self.found.defined_rows)

    def _text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _first_child(node: Node | None) -> Node | None:
    return node.named_child(0) if node is not None and node.named_child_count else None


def _is_string(node: Node | None) -> bool:
    return node is not None and node.type == "string"


def _is_else_if(node: Node) -> bool:
    return node.parent is not None and node.parent.type == "else_clause" and node.type in _ELSE_IF


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
