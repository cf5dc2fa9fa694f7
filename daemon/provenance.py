"""Where a version comes from: the revision of this code, and the model card that travels with the adapter."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from daemon.files import write_atomically
from daemon.gate import Gate
from daemon.job import Result
from schema.runs import Run

_CARD = """\
---
base_model: {base}
library_name: peft
tags: [codelupe, lora]
---
# {line}, version {version}

Adapter of `{base}`, made by run {run}{parent} on {rows} new rows ({tokens:,} tokens, {seconds:.0f} s).

| model | held-out bits per byte |
|---|---|
{table}

{summary}

Members digest `{members}`. Every file of this folder is listed with its SHA-256 in `manifest.json`.
"""


def code_revision() -> str:
    """Return the version of this program, with the commit when it runs from a checkout."""
    name = f"codelupe {version('codelupe')}"
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return name
    found = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"{name} {found.stdout.strip()}".strip()


def write_model_card(adapter: Path, run: Run, result: Result, gate: Gate, *, num_rows: int) -> None:
    """Write the README.md of an adapter: what it was made from, and how it did. A pure function of the run."""
    parent = f" from version {run.parent_version}" if run.parent_version is not None else ""
    card = _CARD.format(
        base=run.config["base_model"],
        line=run.config["line"],
        version=run.version,
        run=run.number,
        parent=parent,
        rows=num_rows,
        tokens=result.tokens,
        seconds=result.seconds,
        table="\n".join(f"| {model} | {bits:.4f} |" for model, bits in gate.bits_per_byte.items() if bits is not None),
        summary=gate.summary(),
        members=run.members_digest,
    )
    write_atomically(adapter / "README.md", card.encode())
