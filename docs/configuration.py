"""Write the configuration table into README.md from the settings' own docstrings: `python -m docs.configuration`."""

import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

import codelupe

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- configuration -->\n", "<!-- /configuration -->"


def render() -> str:
    """Return the tables, a section each."""
    top = {name: field for name, field in codelupe.Settings.model_fields.items() if name not in codelupe.SECTIONS}
    parts = ["", *_table("", top)]
    for section, model in codelupe.SECTIONS.items():
        parts += ["", f"### [{section}]", "", *_table(section, model.model_fields)]
    parts += ["", "### Profiles", "", *_profiles()]
    return "\n".join([*parts, "", ""])


def place(readme: str) -> str:
    """Return the README's text with the tables in their place."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + render() + END + rest.partition(END)[2]


def _table(section: str, fields: dict[str, FieldInfo]) -> list[str]:
    rows = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | `{codelupe.PREFIX}{name.upper()}` | {_default(section, name, field)} | {meaning} |")
    return rows


def _default(section: str, name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`~/.local/share/codelupe`"
    if name == "ingest_workers":
        return "the cores"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    text = (
        ", ".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return f"`{text}`" if text else ""


def _profiles() -> list[str]:
    rows = ["| profile | defaults that it sets |", "|---|---|"]
    for profile, sections in codelupe.PROFILES.items():
        values = [f"`{name}={value}`" for fields in sections.values() for name, value in fields.items()]
        rows.append(f"| `{profile}` | {' '.join(values)} |")
    return rows


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(place(text), encoding="utf-8")
    sys.stdout.write("README.md: configuration table written\n")
