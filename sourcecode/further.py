"""Languages beyond the six: switched on by naming them in `languages`, where their grammar's package is installed.

Their node kinds are not listed by hand: tree-sitter's grammars name them alike, so that roles follow from the names.
The score of such a language is rougher: it has no reserved words, conventions and risks of its own.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Final

from tree_sitter import Language


@dataclass(frozen=True, slots=True)
class Further:
    """A language by its extensions, and where its grammar is: a wheel that carries the parser."""

    extensions: tuple[str, ...]
    package: str
    function: str = "language"

    @property
    def module(self) -> str:
        """The name that is imported."""
        return self.package.replace("-", "_")


FURTHER: Final = {
    "bash": Further((".sh", ".bash"), "tree-sitter-bash"),
    "c": Further((".c", ".h"), "tree-sitter-c"),
    "cpp": Further((".cc", ".cpp", ".cxx", ".hh", ".hpp"), "tree-sitter-cpp"),
    "csharp": Further((".cs",), "tree-sitter-c-sharp"),
    "java": Further((".java",), "tree-sitter-java"),
    "kotlin": Further((".kt", ".kts"), "tree-sitter-kotlin"),
    "lua": Further((".lua",), "tree-sitter-lua"),
    "php": Further((".php",), "tree-sitter-php", "language_php"),
    "ruby": Further((".rb",), "tree-sitter-ruby"),
    "scala": Further((".scala",), "tree-sitter-scala"),
    "swift": Further((".swift",), "tree-sitter-swift"),
}
EXTENSIONS: Final = {extension: name for name, further in FURTHER.items() for extension in further.extensions}

_DEFINED = "(?:definition|declaration|item|specifier|expression|literal)"
_BRANCHES = "if|elif|elsif|unless|for|for_in|foreach|enhanced_for|while|until|do|switch|match|when|case|catch|rescue"
# By name of role in grammars.Role; a kind may have several.
_ROLES: Final = {
    "FUNCTION": rf"(?:function|method|constructor|lambda|closure|arrow_function|func)(?:_{_DEFINED})?|singleton_method",
    "TYPE": rf"(?:class|struct|enum|interface|trait|record|union|object|protocol)(?:_{_DEFINED})?",
    "BRANCH": rf"(?:{_BRANCHES})(?:_(?:statement|expression|clause|block|entry|label|arm|group|case))?"
    "|conditional_expression|ternary_expression|conditional",
    "NESTING": r"(?:if|unless|for|for_in|foreach|enhanced_for|while|until|do|switch|match|when|try)"
    r"(?:_(?:statement|expression))?",
    "COMMENT": r"(?:\w+_)?comment",
    "STRING": r"(?:\w+_)?string(?:_literal)?|(?:char|character)(?:_literal)?|heredoc(?:_body)?",
    "NAME": r"(?:\w+_)?identifier|constant|name",
    "DECORATION": r"annotation|marker_annotation|attribute_list|attribute",
    "PARAMETERS": r"(?:\w+_)?(?:parameters|parameter_list)",
    "CONTAINER": r"program|source_file|translation_unit|compilation_unit|chunk|block|compound_statement|\w+_body"
    r"|declaration_list|field_declaration_list|body_statement|statements",
    "ARGUMENTS": r"(?:\w+_)?(?:arguments|argument_list)",
}


def is_installed(name: str) -> bool:
    """Say whether a further language's grammar is there; nothing of it is loaded."""
    return importlib.util.find_spec(FURTHER[name].module) is not None


def load_further(name: str) -> Language:
    """Return a further language's grammar."""
    further = FURTHER[name]
    return Language(getattr(importlib.import_module(further.module), further.function)())


def find_kinds(language: Language) -> dict[str, str]:
    """Return the node kinds of a grammar by the name of their role, with blanks between them."""
    kinds = {
        kind
        for number in range(language.node_kind_count)
        if language.node_kind_is_named(number)
        and language.node_kind_is_visible(number)
        and (kind := language.node_kind_for_id(number))
    }
    found = {role: sorted(filter(re.compile(pattern).fullmatch, kinds)) for role, pattern in _ROLES.items()}
    return {role: " ".join(names) for role, names in found.items() if names}
