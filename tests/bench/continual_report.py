"""What the rounds of `tests.bench.continual` came to: regressions and gains, and their tables."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Costs = dict[str, float]  # bits per byte by source


def describe_round(runs: Sequence[Any], costs: dict[int, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return what serves after a round and before it, in bits per byte by source, and how its runs ended."""
    before: Costs = {}
    after: Costs = {}
    base: Costs = {}
    for run in runs:
        for source, models in costs.get(run.number, {}).items():
            name = Path(source).name
            reference = models.get("incumbent", models["base"])
            before.setdefault(name, reference)
            base[name] = models["base"]
            after[name] = models["candidate"] if run.state == "promoted" else reference
    return {
        "runs": [f"{run.kind} {run.state}" for run in runs],
        "base": base,
        "before": before,
        "after": after,
    }


def summarise(rounds: Sequence[dict[str, Any]], sources: Sequence[str]) -> dict[str, Any]:
    """Return the regressions of an arm, and what it gained. The first source is the anchor, then one for each round."""
    anchor = sources[0]
    learned: Costs = {anchor: next((one["base"][anchor] for one in rounds if anchor in one["base"]), math.nan)}
    of_rounds, earlier = [], dict(learned)
    for number, one in enumerate(rounds, start=1):
        of_rounds.append(_change(one["before"], one["after"], list(learned)))
        if any(run.endswith("promoted") for run in one["runs"]):
            earlier = dict(learned)
            learned |= {
                name: one["after"][name]
                for name in sources[1 : number + 1]
                if name not in learned and name in one["after"]
            }
    last, base = rounds[-1]["after"], rounds[-1]["base"]
    return {
        "regression_by_round": of_rounds,
        "worst_regression_of_a_round": max(of_rounds),
        "regression_over_all_rounds": _change(earlier, last, list(earlier)),
        "worst_source": max((_change(earlier, last, [name]), name) for name in earlier),
        "promoted": sum(run.endswith("promoted") for one in rounds for run in one["runs"]),
        "gain": -_change(base, last, list(last)),
    }


def _change(before: Costs, after: Costs, names: Sequence[str]) -> float:
    """Return the relative change of the mean bits per byte over these sources, each of the same weight."""
    known = [name for name in names if name in before and name in after]
    if not known:  # no run: what serves is what served before
        return 0.0
    return round(sum(after[name] for name in known) / sum(before[name] for name in known) - 1, 5)


def as_markdown(report: dict[str, Any]) -> str:
    """Return the tables for docs/measurements.md."""
    lines = [
        f"Base, on the anchor: {json.dumps(report['base'])}",
        "",
        "| arm | promoted | worst regression of a round | over all rounds | worst source | gain on the base |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in report["arms"].items():
        share, source = arm["worst_source"]
        shown = f"{arm['worst_regression_of_a_round']:+.2%} | {arm['regression_over_all_rounds']:+.2%}"
        lines.append(f"| {name} | {arm['promoted']} | {shown} | {source} {share:+.2%} | {arm['gain']:.2%} |")
    for name, arm in report["arms"].items():
        sources = report["sources"]
        lines += ["", f"**{name}**: bits per byte by round", "", "| | " + " | ".join(sources) + " | runs |"]
        lines.append("|---" * (len(sources) + 2) + "|")
        for number, one in enumerate(arm["rounds"], start=1):
            cells = [f"{one['after'][source]:.3f}" if source in one["after"] else "" for source in sources]
            lines.append(f"| {number} | " + " | ".join(cells) + f" | {', '.join(one['runs'])} |")
    return "\n".join(lines)
