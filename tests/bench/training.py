"""Measure training on a CPU beside the stacks that others use: the same base, samples, adapter, rate and optimizer.

`python -m tests.bench.training [--json] [--shape tiny] [--quick] [--overheads] [--published] [--threads N]`

Four contestants, each in a process of its own, take turns in one run (A/B/A; the median turn counts): ours is the
training child's own `train`; contest/stock.py and contest/sft.py say what the others are and which settings were chosen
in their favour. All train one epoch over the same samples of Python's standard library on an untrained base.

- `tokens_per_s`: real tokens (no padding) per second of whole optimizer steps after the warm-up.
- `peak_rss_mb`: the process's peak of resident memory, loading included (VmHWM).
- `loss`: nats per completion token of held-out files under the adapter that was trained.
- `ratio_padded`, `ratio_packed`: our tokens per second over those of the stock stack, padded and packed.
- `flops_ratio`, `packing_density`, `leak`: of our step and rows; see contest/examine.py.

The figures at the top level are those of `--shape`; `shapes` has both. `--published` adds the stock stack as it is
published, which recomputes activations. `--overheads` adds what is not arithmetic: contest/overheads.py.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers.utils import logging

from daemon.job import Result
from tests.bench.contest.child import compete
from tests.bench.contest.examine import examine
from tests.bench.contest.overheads import measure_overheads
from tests.bench.contest.shapes import QUICK, SHAPES, Shape
from tests.bench.contest.stage import OURS, build_stage
from tests.bench.contest.turns import Contestant, prepare_processes

NAMES = [OURS, "stock_padded", "stock_packed", "trl"]
PUBLISHED = "stock_published"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="whose figures are at the top level")
    parser.add_argument("--only", action="store_true", help="measure no other shape than that")
    parser.add_argument("--quick", action="store_true", help="a micro shape instead: that everything runs, no figure")
    parser.add_argument("--published", action="store_true", help="also the stock stack with recomputation")
    parser.add_argument("--overheads", action="store_true", help="also what is not arithmetic")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    shapes = QUICK if options.quick else {options.shape: SHAPES[options.shape]} if options.only else SHAPES
    shown = "micro" if options.quick else options.shape
    prepare_processes(options.threads)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # peft asks by the old name
    with show_progress() as tell:
        measured = {
            name: measure(shape, options, lambda text, name=name: tell(f"{name}: {text}"))  # type: ignore[misc]
            for name, shape in shapes.items()
        }
    if options.json:
        print(json.dumps({"shape": shown, **measured[shown], "shapes": measured}, indent=1))
    else:
        for name, report in measured.items():
            print_table(name, report)


@contextmanager
def show_progress() -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done, and for how long."""
    console = Console(stderr=True)
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)
    task = bar.add_task("")

    def tell(text: str) -> None:
        bar.update(task, description=text)
        if not console.is_terminal:
            console.print(text)

    with bar:
        yield tell


def measure(shape: Shape, options: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return the report of one shape."""
    names = [*NAMES, *([PUBLISHED] if options.published else [])]
    with tempfile.TemporaryDirectory(prefix="codelupe-bench-") as folder:
        stage = Path(folder)
        tell("corpus, tokenizer, base")
        build_stage(stage, shape, options.threads)
        contestants = compete(names, stage, shape, tell)
        tell("losses, operations, leak")
        report = describe(contestants, examine(stage, names), stage)
        if options.overheads:
            report["overheads"] = measure_overheads(stage, shape, tell)
    return report


def describe(contestants: list[Contestant], examined: dict[str, Any], stage: Path) -> dict[str, Any]:
    """Put the figures together."""
    losses = examined.pop("losses")
    report: dict[str, Any] = {
        contestant.name: {
            "tokens_per_s": round(contestant.tokens_per_s, 1),
            "peak_rss_mb": contestant.last["peak_rss_mb"],
            "loss": round(losses[contestant.name], 4),
        }
        for contestant in contestants
    }
    ours = report[OURS]["tokens_per_s"]
    result = Result.model_validate_json((stage / OURS / "result.json").read_text())
    return report | {
        "ratio_padded": round(ours / report["stock_padded"]["tokens_per_s"], 3),
        "ratio_packed": round(ours / report["stock_packed"]["tokens_per_s"], 3),
        "ratio_trl": round(ours / report["trl"]["tokens_per_s"], 3),
        **examined,
        "packing_density": result.packing_density,
        "base_loss": round(losses["base"], 4),
        "turns": {contestant.name: contestant.turns for contestant in contestants},
    }


def print_table(name: str, report: dict[str, Any]) -> None:
    """Print the report of one shape for people."""
    table = Table("", "tokens/s", "ours is", "peak RSS, MB", "held-out loss", title=name, title_justify="left")
    ours = report[OURS]["tokens_per_s"]
    for contestant in (name for name, value in report.items() if isinstance(value, dict) and "peak_rss_mb" in value):
        figures = report[contestant]
        ratio = f"{ours / figures['tokens_per_s']:.2f} ×"
        row = f"{figures['tokens_per_s']:,.0f}", ratio, f"{figures['peak_rss_mb']:,.0f}", f"{figures['loss']:.4f}"
        table.add_row(contestant, *row)
    console = Console(width=100)
    console.print(table)
    for key in ("flops_ratio", "packing_density", "leak", "base_loss", "overheads"):
        if key in report:
            console.print(f"{key:16} {report[key]}")


if __name__ == "__main__":
    main()
