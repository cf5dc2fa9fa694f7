"""Ways to make real code worse in any of the six languages, each of which must lower its score."""

import math
import re
import textwrap
from collections.abc import Callable, Iterator

from tree_sitter import Node, Tree

from sourcecode.grammars import Role, grammar_of
from sourcecode.scores import score
from sourcecode.syntax import parse, walk

# Appended to a file: code that runs what a caller sends, and a password.
INJECTIONS = {
    "python": "def run(source):\n    eval(source)\n    os.system(source)\n",
    "go": 'func run(source string) error {\n\treturn exec.Command("sh", "-c", source).Run()\n}\n',
    "rust": 'fn run(source: &str) {\n    let _child = Command::new("sh").arg("-c").arg(source).spawn();\n}\n',
    "typescript": "function run(source: string): void {\n  eval(source);\n}\n",
    "javascript": "function run(source) {\n  eval(source);\n}\n",
    "dart": "void run(String source) {\n  Process.run('sh', ['-c', source]);\n}\n",
}
CREDENTIALS = {
    "python": 'DB_PASSWORD = "Zk7Qp2Rx9Tv4"\n',
    "go": 'const dbPassword = "Zk7Qp2Rx9Tv4"\n',
    "rust": 'const DB_PASSWORD: &str = "Zk7Qp2Rx9Tv4";\n',
    "typescript": 'const dbPassword: string = "Zk7Qp2Rx9Tv4";\n',
    "javascript": 'const dbPassword = "Zk7Qp2Rx9Tv4";\n',
    "dart": "const String dbPassword = 'Zk7Qp2Rx9Tv4';\n",
}
_LONG = {
    "python": "long_{0} = {1}\n",
    "go": "var long{0} = {1}\n",
    "rust": "const LONG_{0}: u32 = {1};\n",
    "typescript": "const long{0} = {1};\n",
    "javascript": "const long{0} = {1};\n",
    "dart": "const long{0} = {1};\n",
}
_FUNCTIONS = {
    "python": "def everything():\n{0}\n",
    "go": "func everything() {{\n{0}\n}}\n",
    "rust": "fn everything() {{\n{0}\n}}\n",
    "typescript": "function everything() {{\n{0}\n}}\n",
    "javascript": "function everything() {{\n{0}\n}}\n",
    "dart": "void everything() {{\n{0}\n}}\n",
}
_HEADERS = re.compile(r"(?m)^(?:package|import|library|use|part|from|export \* from)\b.*\n")
_HOLES = dict.fromkeys(("arrow_function", "function_expression", "closure_expression", "lambda", "func_literal"), b"0")
_HOLES["function_body"] = b";"
_MIN_FUSED = 3
_MIN_FUSED_LINES = 15
_LONG_SHARE = 0.2
_MIN_LONG_LINES = 10


def rate(language: str, text: str) -> float:
    """Return the score of a text; 0 where no tree can be made in time, for such a text is refused."""
    tree = parse(language, text)
    return 0.0 if isinstance(tree, str) else score(language, text, tree).total


def strip_documentation(language: str, text: str) -> str:
    """Drop comments, put a `pass` in the place of docstrings; return the same text when there are none."""
    tree = _tree(language, text)
    spans = [(node.start_byte, node.end_byte, b"") for node in _nodes(language, tree, Role.COMMENT)]
    for node in _nodes(language, tree, Role.STATEMENT_STRING):
        child = node.named_child(0)
        if child is not None and child.type == "string" and node.named_child_count == 1:
            spans.append((node.start_byte, node.end_byte, b"pass"))
    if not spans:
        return text
    lines = text.split("\n")
    stripped = _replace(
        text, [(start, end, new + b"\n" * _slice(text, start, end).count("\n")) for start, end, new in spans]
    )
    return "\n".join(
        new for new, old in zip(stripped.split("\n"), lines, strict=True) if new.strip() or not old.strip()
    )


def replace_names(language: str, text: str) -> str:
    """Call everything v1, v2, …"""
    data, numbers = text.encode(), dict[bytes, int]()
    spans = []
    for node in _nodes(language, _tree(language, text), Role.NAME):
        if node.child_count == 0:
            name = data[node.start_byte : node.end_byte]
            spans.append((node.start_byte, node.end_byte, b"v%d" % numbers.setdefault(name, len(numbers) + 1)))
    return _replace(text, spans)


def fuse_functions(language: str, text: str) -> str:
    """Put the statements of all functions into one; return the text when they are few or short."""
    text = strip_documentation(language, text)
    spans, bodies = [], []
    for node, body in _outer_functions(language, text):
        spans.append((node.start_byte, node.end_byte, _HOLES.get(node.type, b"")))
        bodies.append(_statements(language, text, body))
    if len(bodies) < _MIN_FUSED or sum(body.count("\n") + 1 for body in bodies) < _MIN_FUSED_LINES:
        return text
    return _replace(text, spans) + "\n" + _FUNCTIONS[language].format(textwrap.indent("\n".join(bodies), "    "))


def comment_code_out(language: str, text: str) -> str:
    """Comment the second half out."""
    lines = text.split("\n")
    half = len(lines) // 2
    mark = "#" if language == "python" else "//"
    return "\n".join(lines[:half] + [f"{mark} {line}" for line in lines[half:]])


def make_long_lines(language: str, text: str) -> str:
    """Join lines after commas, and add a fifth of long lines."""
    num = max(_MIN_LONG_LINES, math.ceil(_LONG_SHARE * text.count("\n")))
    sums = (_LONG[language].format(number, "1 + " * 40 + "1") for number in range(num))
    return re.sub(r",\n\s+", ", ", text) + "\n" + "".join(sums)


def paste_copies(language: str, text: str) -> str:
    """Append the file to itself."""
    return text + "\n\n" + _HEADERS.sub("", text)


def add_injection(language: str, text: str) -> str:
    """Run what a caller sends."""
    return f"{text}\n\n{INJECTIONS[language]}"


def add_credential(language: str, text: str) -> str:
    """Write a password down."""
    return f"{text}\n\n{CREDENTIALS[language]}"


def reference_of(degrade: Callable[[str, str], str], language: str, text: str) -> str:
    """Return what a degraded text is compared with: fused functions lose their comments, which is another loss."""
    return strip_documentation(language, text) if degrade is fuse_functions else text


DEGRADATIONS: tuple[Callable[[str, str], str], ...] = (
    *(strip_documentation, replace_names, fuse_functions, comment_code_out),
    *(make_long_lines, paste_copies, add_injection, add_credential),
)


def _tree(language: str, text: str) -> Tree:
    tree = parse(language, text)
    if isinstance(tree, str):
        raise ValueError(f"no tree: {tree}")  # noqa: TRY004 - the text is at fault
    return tree


def _nodes(language: str, tree: Tree, roles: int) -> Iterator[Node]:
    grammar = grammar_of(tree, language)
    return (node for node, _, _ in walk(tree) if grammar.role(node) & roles)


def _replace(text: str, spans: list[tuple[int, int, bytes]]) -> str:
    data, parts, done = text.encode(), [], 0
    for start, end, new in sorted(spans):
        if start >= done:
            parts += [data[done:start], new]
            done = end
    return b"".join([*parts, data[done:]]).decode("utf-8", "replace")


def _outer_functions(language: str, text: str) -> Iterator[tuple[Node, Node]]:
    """Yield the functions that are not in others, with their bodies."""
    done = 0
    for node in _nodes(language, _tree(language, text), Role.FUNCTION):
        body = node if node.type == "function_body" else node.child_by_field_name("body")
        if node.start_byte >= done and body is not None:
            done = node.end_byte
            yield node, body


def _statements(language: str, text: str, body: Node) -> str:
    """Return what a function does, without braces and indentation."""
    code = _slice(text, body.start_byte, body.end_byte)
    if language == "python":
        return textwrap.dedent(" " * body.start_point.column + code)
    code = re.sub(r"^a?sync\*?\s*", "", code)
    # The braces of a block go; those that end an expression are its own.
    inner = code[1:-1] if code.startswith("{") else code.removeprefix("=>")
    return textwrap.dedent(inner).strip() + (";" if language == "rust" else "")


def _slice(text: str, start: int, end: int) -> str:
    return text.encode()[start:end].decode("utf-8", "replace")
