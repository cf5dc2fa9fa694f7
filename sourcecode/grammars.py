"""What the node kinds of each grammar mean: one table per language, read by syntax.py and measures.py.

What a score is made of is found by a query, which runs in C: only the nodes that matter become Python objects.

Grammars come from wheels that carry their parser; nothing is downloaded at run time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import tree_sitter_dart
import tree_sitter_go
import tree_sitter_javascript
import tree_sitter_python
import tree_sitter_rust
import tree_sitter_typescript
from tree_sitter import Language, Node, Query, Tree

from sourcecode.further import FURTHER, find_kinds, load_further


class Role:
    """What a node is to us, as bits, for it may be several things. Plain numbers: IntFlag made walks 4 times slower."""

    FUNCTION = 1  # has parameters and a body
    TYPE = 2  # class, struct, enum, interface, trait
    BRANCH = 4  # adds a path through the function
    NESTING = 8  # indents what is inside it
    COMMENT = 16
    STRING = 32
    NAME = 64  # an identifier
    DECORATION = 128  # stands between a declaration and its documentation
    PARAMETERS = 256
    CONTAINER = 512  # a sequence of statements or members
    ARGUMENTS = 1024
    HEAD = 2048  # a signature whose body is the next node, so no place to cut
    STATEMENT_STRING = 4096  # may be a docstring (Python)
    DECLARED = 8192  # a function's signature without a body (Rust)
    TEXT = 16384  # neither code nor in quotes: prose between the tags of JSX, regular expressions


_C_LIKE_NESTING = "if_statement for_statement while_statement do_statement switch_statement try_statement"

_KINDS: dict[str, dict[int, str]] = {
    "python": {
        Role.FUNCTION: "function_definition lambda",
        Role.TYPE: "class_definition",
        Role.BRANCH: "if_statement elif_clause for_statement while_statement except_clause case_clause"
        " conditional_expression boolean_operator for_in_clause if_clause assert_statement",
        Role.NESTING: "if_statement for_statement while_statement try_statement with_statement match_statement",
        Role.COMMENT: "comment",
        Role.STRING: "string",
        Role.NAME: "identifier",
        Role.DECORATION: "decorator",
        Role.PARAMETERS: "parameters lambda_parameters",
        Role.CONTAINER: "module block",
        Role.ARGUMENTS: "argument_list",
        Role.STATEMENT_STRING: "expression_statement",
    },
    "go": {
        Role.FUNCTION: "function_declaration method_declaration func_literal",
        Role.TYPE: "type_spec",
        Role.BRANCH: "if_statement for_statement expression_case type_case communication_case",
        Role.NESTING: "if_statement for_statement expression_switch_statement type_switch_statement select_statement",
        Role.COMMENT: "comment",
        Role.STRING: "interpreted_string_literal raw_string_literal",
        Role.NAME: "identifier field_identifier type_identifier",
        Role.PARAMETERS: "parameter_list",
        Role.CONTAINER: "source_file block statement_list field_declaration_list interface_type var_spec_list",
        Role.ARGUMENTS: "argument_list",
    },
    "rust": {
        Role.FUNCTION: "function_item closure_expression",
        Role.TYPE: "struct_item enum_item trait_item union_item",
        Role.BRANCH: "if_expression for_expression while_expression loop_expression match_arm try_expression",
        Role.NESTING: "if_expression for_expression while_expression loop_expression match_expression",
        Role.COMMENT: "line_comment block_comment",
        Role.STRING: "string_literal raw_string_literal",
        Role.NAME: "identifier field_identifier type_identifier",
        Role.DECORATION: "attribute_item",
        Role.PARAMETERS: "parameters closure_parameters",
        Role.CONTAINER: "source_file block declaration_list field_declaration_list enum_variant_list match_block",
        Role.ARGUMENTS: "arguments",
        Role.DECLARED: "function_signature_item",
    },
    "javascript": {
        Role.FUNCTION: "function_declaration generator_function_declaration function_expression generator_function"
        " arrow_function method_definition",
        Role.TYPE: "class_declaration class",
        Role.BRANCH: "if_statement for_statement for_in_statement while_statement do_statement switch_case"
        " catch_clause ternary_expression",
        Role.NESTING: f"{_C_LIKE_NESTING} for_in_statement",
        Role.COMMENT: "comment",
        Role.STRING: "string template_string",
        Role.TEXT: "jsx_text regex hash_bang_line",
        Role.NAME: "identifier property_identifier private_property_identifier shorthand_property_identifier_pattern",
        Role.DECORATION: "decorator",
        Role.PARAMETERS: "formal_parameters",
        Role.CONTAINER: "program statement_block class_body switch_body switch_case switch_default",
        Role.ARGUMENTS: "arguments",
    },
    "dart": {
        Role.FUNCTION: "function_body function_expression",
        Role.TYPE: "class_definition enum_declaration mixin_declaration extension_declaration",
        Role.BRANCH: "if_statement for_statement while_statement do_statement switch_statement_case catch_clause"
        " conditional_expression switch_expression_case logical_and_expression logical_or_expression"
        " if_null_expression",
        Role.NESTING: _C_LIKE_NESTING,
        Role.COMMENT: "comment documentation_comment",
        Role.STRING: "string_literal",
        Role.NAME: "identifier type_identifier",
        Role.DECORATION: "annotation",
        Role.PARAMETERS: "formal_parameter_list",
        Role.CONTAINER: "program block class_body extension_body enum_body switch_block",
        Role.ARGUMENTS: "arguments",
        Role.HEAD: "function_signature method_signature getter_signature setter_signature",
    },
}
_KINDS["typescript"] = _KINDS["javascript"] | {
    Role.TYPE: "class_declaration class abstract_class_declaration interface_declaration enum_declaration"
    " type_alias_declaration",
    Role.NAME: _KINDS["javascript"][Role.NAME] + " type_identifier",
    Role.CONTAINER: _KINDS["javascript"][Role.CONTAINER] + " interface_body enum_body object_type",
}

# What each capture of a language's query is made of. A `logic` operator adds a path like a branch; an `else_if` is an
# `if` that continues another; a `receiver` is Go's parameter before a method's name.
_CAPTURES = {
    "comment": Role.COMMENT,
    "string": Role.STRING,
    "text": Role.TEXT,
    "decoration": Role.DECORATION,
    "node": Role.FUNCTION | Role.TYPE | Role.BRANCH | Role.NESTING | Role.PARAMETERS | Role.HEAD | Role.DECLARED,
}
_LOGIC = "(binary_expression operator: [%s]) @node "
_PATTERNS = {
    "python": "(expression_statement . (string) .) @docstring",
    "go": _LOGIC % '"&&" "||"'
    + "(method_declaration receiver: (_) @receiver) (if_statement alternative: (if_statement) @else_if)",
    "rust": _LOGIC % '"&&" "||"' + "(else_clause (if_expression) @else_if)",
    "javascript": _LOGIC % '"&&" "||" "??"' + "(else_clause (if_statement) @else_if)",
    "dart": "(if_statement alternative: (_) @else_if)",
}
_PATTERNS["typescript"] = _PATTERNS["javascript"]

_SOURCES = {
    "python": tree_sitter_python.language,
    "go": tree_sitter_go.language,
    "rust": tree_sitter_rust.language,
    "javascript": tree_sitter_javascript.language,
    "typescript": tree_sitter_typescript.language_typescript,
    "tsx": tree_sitter_typescript.language_tsx,
    "dart": tree_sitter_dart.language,
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language as tree-sitter parses it, the roles of its node kinds by their numbers, and what is measured in it."""

    language: Language
    roles: tuple[int, ...]
    query: Query

    def role(self, node: Node) -> int:
        """Return the roles of a node, 0 for none (errors have numbers beyond the table)."""
        return self.roles[node.kind_id] if node.kind_id < len(self.roles) else 0


@cache
def load_grammar(name: str) -> Grammar:
    """Return the grammar of one of LANGUAGES, of "tsx", or of a further language whose package is installed."""
    if name in FURTHER:
        further = load_further(name)
        roles = {getattr(Role, role): words for role, words in find_kinds(further).items()}
        return Grammar(further, tuple(_roles(further, roles)), _make_query(further, roles, ""))
    language = Language(_SOURCES[name]())
    table = "typescript" if name == "tsx" else name
    kinds = _KINDS[table]
    return Grammar(language, tuple(_roles(language, kinds)), _make_query(language, kinds, _PATTERNS[table]))


def grammar_of(tree: Tree, language: str) -> Grammar:
    """Return the grammar that made a tree: for TypeScript there are two, and the tree knows which."""
    tsx = load_grammar("tsx")
    return tsx if tree.language == tsx.language else load_grammar(language)


def _roles(language: Language, kinds: dict[int, str]) -> Iterable[int]:
    of_kind: dict[str, int] = {}
    for role, names in kinds.items():
        for kind in names.split():
            of_kind[kind] = of_kind.get(kind, 0) | role
    for number in range(language.node_kind_count):
        is_named = language.node_kind_is_named(number)
        yield of_kind.get(language.node_kind_for_id(number) or "", 0) if is_named else 0


def _make_query(language: Language, kinds: dict[int, str], patterns: str) -> Query:
    parts = [patterns]
    for capture, roles in _CAPTURES.items():
        names = {kind for role, words in kinds.items() if role & roles for kind in words.split()}
        if names:
            parts.append(f"[{' '.join(f'({kind})' for kind in sorted(names))}] @{capture}")
    return Query(language, " ".join(parts))
