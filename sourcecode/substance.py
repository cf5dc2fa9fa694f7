"""Is there code in a file at all? Some are a licence, imports and re-exports; some a table of literals."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from tree_sitter import Language, Node, Query, QueryCursor, Tree

# Of what is neither comment nor import, literals of so large a share (bytes) make a file data.
MAX_DATA_SHARE: Final = 0.9
# A few named constants are code that others read; so many bytes are a table.
MIN_DATA_BYTES: Final = 512
_DUNDER = b"__"


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the kinds of node at the top of a file are; `code` are those that make a value more than a literal."""

    frame: frozenset[str]
    data: frozenset[str]
    code: tuple[str, ...]
    joints: frozenset[str] = frozenset()
    """Parts of a declaration that some grammars put beside it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_JAVASCRIPT = Kinds(
    frame=_words("comment hash_bang_line import_statement empty_statement"),
    data=_words("lexical_declaration variable_declaration"),
    code=(
        *("call_expression", "new_expression", "arrow_function", "function_expression", "generator_function"),
        *("method_definition", "class", "jsx_element", "jsx_self_closing_element", "method_signature"),
    ),
)
_KINDS: Final = {
    "python": Kinds(
        frame=_words("comment import_statement import_from_statement future_import_statement pass_statement"),
        data=frozenset(),
        code=(
            *("call", "lambda", "list_comprehension", "dictionary_comprehension", "set_comprehension"),
            *("generator_expression", "conditional_expression", "await", "interpolation"),
        ),
    ),
    "go": Kinds(
        frame=_words("comment package_clause import_declaration"),
        data=_words("const_declaration var_declaration"),
        code=("call_expression", "func_literal"),
    ),
    "rust": Kinds(
        frame=_words(
            "line_comment block_comment inner_attribute_item attribute_item extern_crate_declaration use_declaration"
            " empty_statement shebang"
        ),
        data=_words("const_item static_item"),
        code=("call_expression", "macro_invocation", "closure_expression", "block"),
    ),
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "dart": Kinds(
        frame=_words(
            "comment documentation_comment library_name import_or_export part_directive part_of_directive"
            " script_tag annotation"
        ),
        data=_words("static_final_declaration_list initialized_identifier_list"),
        code=("arguments", "function_expression", "const_object_expression", "new_expression", "throw_expression"),
        joints=_words(
            "; const_builtin final_builtin late_builtin inferred_type type_identifier type_arguments nullable_type"
            " void_type function_type record_type ."
        ),
    ),
}


def find_lack_of_substance(language: str, tree: Tree) -> tuple[str, str] | None:
    """Return (reason, detail) against a file without code: `boilerplate` or `data`; None if it has some."""
    kinds = _KINDS.get(language)
    if kinds is None:
        return None
    data, num_code_bytes = [], 0
    enough_code = (1 - MAX_DATA_SHARE) * tree.root_node.end_byte + 1
    for node in tree.root_node.children:
        if _is_frame(node, kinds):
            continue
        if _is_data(node, kinds):
            data.append(node)
        elif node.type not in kinds.joints:
            num_code_bytes += _num_bytes(node)
            if num_code_bytes > enough_code:
                # Whatever comes, it cannot be data of MAX_DATA_SHARE any more.
                return None
    num_data_bytes = sum(map(_num_bytes, data))
    if num_data_bytes + num_code_bytes == 0:
        return "boilerplate", "comments, imports and re-exports alone"
    if num_data_bytes < max(MIN_DATA_BYTES, MAX_DATA_SHARE * (num_data_bytes + num_code_bytes)):
        return None
    share = sum(map(_num_bytes, _keep_literals(data, tree, kinds))) / (num_data_bytes + num_code_bytes)
    return ("data", f"{share:.0%} of the code are literals") if share >= MAX_DATA_SHARE else None


def _is_frame(node: Node, kinds: Kinds) -> bool:
    if node.type in kinds.frame:
        return True
    if node.type == "mod_item":
        return node.child_by_field_name("body") is None
    if node.type == "export_statement":
        return node.child_by_field_name("source") is not None or _has_child(node, "export_clause")
    if node.type == "expression_statement":
        return _is_framing_statement(node.named_child(0))
    return node.type in ("lexical_declaration", "variable_declaration") and _is_require(node)


def _is_framing_statement(value: Node | None) -> bool:
    """Say whether a statement is a docstring or directive, or sets a name like __all__."""
    if value is None or value.type != "assignment":
        return value is not None and value.type == "string"
    name = value.child_by_field_name("left")
    return name is not None and (name.text or b"").startswith(_DUNDER)


def _is_require(declaration: Node) -> bool:
    """Say whether a declaration is an import of CommonJS: a call of require, or a part of what it returns."""
    for declarator in declaration.named_children:
        value = declarator.child_by_field_name("value")
        text = b"" if value is None else (value.text or b"")[:8]
        if text != b"require(":
            return False
    return True


def _is_data(node: Node, kinds: Kinds) -> bool:
    """Say whether a statement declares or exports a value, which may be a literal."""
    if node.type == "export_statement":
        inner = node.child_by_field_name("declaration") or node.child_by_field_name("value")
        return inner is not None and (inner.type in kinds.data or inner.type in ("object", "array"))
    if node.type == "expression_statement":
        inner = node.named_child(0)
        return inner is not None and inner.type in ("assignment", "assignment_expression")
    return node.type in kinds.data


def _keep_literals(data: list[Node], tree: Tree, kinds: Kinds) -> list[Node]:
    """Return those of the declarations in which nothing is called or defined."""
    starts = sorted(node.start_byte for node in _find_code(tree, kinds))
    kept, at = [], 0
    for node in data:
        while at < len(starts) and starts[at] < node.start_byte:
            at += 1
        if at == len(starts) or starts[at] >= node.end_byte:
            kept.append(node)
    return kept


def _find_code(tree: Tree, kinds: Kinds) -> list[Node]:
    captures = QueryCursor(_make_query(tree.language, kinds.code)).captures(tree.root_node)
    return captures.get("code", [])


@cache
def _make_query(language: Language, kinds: tuple[str, ...]) -> Query:
    known = [kind for kind in kinds if language.id_for_node_kind(kind, True)]
    return Query(language, " ".join(f"({kind}) @code" for kind in known))


def _has_child(node: Node, kind: str) -> bool:
    return any(child.type == kind for child in node.named_children)


def _num_bytes(node: Node) -> int:
    return node.end_byte - node.start_byte
