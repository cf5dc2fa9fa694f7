"""Where a version comes from: this code, whose code it was trained on, and the model card that travels with it."""

import json
import subprocess
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from daemon.files import write_atomically, write_lines
from daemon.gate import Gate
from daemon.job import Result
from schema.attributions import Attribution, stream_attributions
from schema.runs import Run

ATTRIBUTIONS = "ATTRIBUTIONS.jsonl"
# The manifest sums up: rarer licences than these go under one name.
_NUM_LICENCES = 50
_CARD = """\
---
base_model: {base}
library_name: peft
tags: [codelupe, lora]
---
# {line}, version {version}

Adapter of `{base}`, made by run {run}{parent} on {rows:,} new rows{earlier} ({tokens:,} tokens, {seconds:.0f} s).

| model | held-out bits per byte |
|---|---|
{table}

{summary}

Trained on code of {sources} sources, all earlier rounds included; `ATTRIBUTIONS.jsonl` names each with commit and
licence.
Rows by licence: {licences}.

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


def write_attributions(folder: Path, engine: Engine, run: Run) -> dict[str, Any]:
    """Write a line per source, commit and licence that a run and its ancestors have trained on; return the summary."""
    licences: Counter[str] = Counter()
    sources: set[str] = set()

    def take(found: Attribution) -> str:
        licences[found.licence or "not stated"] += found.rows_in_all
        sources.add(found.source)
        return json.dumps(asdict(found), sort_keys=True)

    with engine.connect() as conn:
        write_lines(folder / ATTRIBUTIONS, (take(found) for found in stream_attributions(conn, run.id)))
    top = dict(licences.most_common(_NUM_LICENCES))
    rest = licences.total() - sum(top.values())
    return {"sources": len(sources), "rows": licences.total(), "licences": top | ({"other": rest} if rest else {})}


def write_model_card(
    adapter: Path, run: Run, result: Result, gate: Gate, *, roles: dict[str, int], attributions: dict[str, Any]
) -> None:
    """Write the README.md of an adapter: what it was made from, and how it did. A pure function of the run."""
    parent = f" from version {run.parent_version}" if run.parent_version is not None else ""
    if run.kind == "consolidation":
        parent = f", a consolidation (a new adapter of the base, judged against version {run.parent_version}),"
    num_earlier = roles.get("replay", 0) + roles.get("consolidation", 0)
    card = _CARD.format(
        base=run.config["base_model"],
        line=run.config["line"],
        version=run.version,
        run=run.number,
        parent=parent,
        rows=roles["train"],
        earlier=f" and {num_earlier:,} of earlier rounds" if num_earlier else "",
        tokens=result.tokens,
        seconds=result.seconds,
        table="\n".join(f"| {model} | {bits:.4f} |" for model, bits in gate.bits_per_byte.items() if bits is not None),
        summary=gate.summary(),
        sources=f"{attributions['sources']:,}",
        licences=", ".join(f"{name} {rows:,}" for name, rows in attributions["licences"].items()),
        members=run.members_digest,
    )
    write_atomically(adapter / "README.md", card.encode())
