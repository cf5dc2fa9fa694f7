"""Write the generated parts of README.md, the file tree and the configuration: `python -m docs.readme`."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

import codelupe

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
# Files without a docstring, and folders that are described as a whole.
WORDS = {
    "Dockerfile": "two images: control without torch, trainer",
    "Makefile": "make run, make test, make test-system; for the stack make secrets, make test-stack; make drill",
    "pyproject.toml": "dependencies, import rule, settings of the tools",
    "docker-compose.yml": "the whole service on one machine; docs/deployment.md",
    "constraints.txt": "every package pinned; torch is the CPU build",
    ".ci/": "what every change must pass: Debian packages, then both test commands",
    "sourcecode/benchmarks.bin": "hashes of the tasks of public benchmarks: what contamination.py looks for",
    "sourcecode/licences.json": "texts of licences by their SPDX ids, as licences.py compares them",
    "ingest/github/terms.toml": "frameworks, topics and libraries by language: what the crawler looks for",
    "deploy/": "what the containers mount and run: Prometheus, Alertmanager, Grafana, backups, passwords",
    "docs/": "measurements, metrics, runbook, faults; the generator of this page",
    "monitoring/static/": "style and icon of the page at /",
    "monitoring/templates/": "the page at /",
    "schema/migrations/": "Alembic's revisions; a test proves that they build the tables",
    "tests/": "what we promise; conftest.py holds the fixtures, builders.py makes rows",
}
_HIDDEN = {
    "__init__.py",
    "py.typed",
    ".gitignore",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
}
_WIDTH = 30


def place(readme: str) -> str:
    """Return the README's text with the generated parts in their places."""
    return _put(_put(readme, "file tree", render_tree()), "configuration", render_configuration())


def _put(text: str, name: str, part: str) -> str:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    return before + begin + part + end + rest.partition(end)[2]


def render_tree() -> str:
    """Return the tracked files, a line each, with the first line of their docstrings."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    paths = sorted(Path(line) for line in listed.splitlines() if Path(line).name not in _HIDDEN)
    lines: list[str] = []
    seen: set[str] = set()
    for path in sorted(paths, key=lambda path: (len(path.parts) > 1, path)):
        parents = [parent for parent in reversed(path.parents) if str(parent) != "."]
        whole = next((f"{parent}/" for parent in parents if f"{parent}/" in WORDS), None)
        for parent in parents:
            name = f"{parent}/"
            if name not in seen and (whole is None or len(name) <= len(whole)):
                seen.add(name)
                lines.append(_line(name, len(parent.parts) - 1))
        if whole is None:
            lines.append(_line(str(path), len(path.parts) - 1))
    return "```\n" + "\n".join(lines) + "\n```\n"


def _line(path: str, depth: int) -> str:
    words = WORDS.get(path)
    if words is None:
        file = ROOT / path / "__init__.py" if path.endswith("/") else ROOT / path
        words = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0].rstrip(".")
    name = "  " * depth + (Path(path).name + "/" if path.endswith("/") else Path(path).name)
    return f"{name:<{_WIDTH}}{words}"


def render_configuration() -> str:
    """Return the tables of settings, a section each, and the profiles."""
    top = {name: field for name, field in codelupe.Settings.model_fields.items() if name not in codelupe.SECTIONS}
    parts = ["", *_table(top)]
    for section, model in codelupe.SECTIONS.items():
        parts += ["", f"### [{section}]", "", *_table(model.model_fields)]
    parts += ["", "### Profiles", "", *_profiles()]
    return "\n".join([*parts, "", ""])


def _table(fields: dict[str, FieldInfo]) -> list[str]:
    rows = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | `{codelupe.PREFIX}{name.upper()}` | {_default(name, field)} | {meaning} |")
    return rows


def _default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`~/.local/share/codelupe`"
    if name == "ingest_workers":
        return "the cores"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(value) if isinstance(value, tuple) else value}`"


def _profiles() -> list[str]:
    rows = ["| profile | defaults that it sets |", "|---|---|"]
    for profile, sections in codelupe.PROFILES.items():
        values = [f"`{name}={value}`" for fields in sections.values() for name, value in fields.items()]
        rows.append(f"| `{profile}` | {' '.join(values)} |")
    return rows


if __name__ == "__main__":
    README.write_text(place(README.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write("README.md: generated parts written\n")
