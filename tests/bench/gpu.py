"""Measure training on a GPU: bases of the real sizes with random weights, built in NF4 on the device, without the hub.

`python -m tests.bench.gpu [--json] [--output FILE] [--budget 540] [--tiny]`

First the ceiling (bf16 matrix products), then the stock stack (contest/on_device.py), ours, stock again, then further
plans and sizes (contest/variants.py), each in a process of its own. Documents are full sequences of 4,096 tokens, every
token is learned. A variant for which too little of the budget (seconds) is left is dropped, and said so. The report is
written anew after each, so that a run that is cut off keeps what it has measured.

- `mfu`: tokens per second times the operations that the model needs for one (frozen base 4, adapter 6, attention; no
  recomputation), over 989 TFLOP/s; `of_ceiling`: the same over the matrix products measured here.
- `planned_gib`: what the planner (daemon/fitting.py) says of the plan that it has chosen; `planned_tensors_gib`: the
  same without what torch does not count (context, libraries, gaps), to lay beside `peak_gib`, the peak that it
  allocated while it trained. `used_gib`: what the card says is taken at the end, to lay beside the whole.
- `first_step_s`: from the request to the end of the first optimizer step, with imports; weights are drawn, not read.
- `syncs_per_step`: times that a step of ours made the host wait for the device. `notes`: what the trainer passed over.

`--tiny` runs everything with a tiny shape on the CPU, in seconds: it proves the script and measures no GPU. What a GPU
machine needs beside torch and transformers, `python -m tests.bench.gpu_wheels FOLDER` puts into a folder.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from daemon.files import write_json
from tests.bench.contest.flops import model_flops
from tests.bench.contest.on_device import measure_ceiling, measure_variant
from tests.bench.contest.turns import Contestant, prepare_processes
from tests.bench.contest.variants import VARIANTS, Variant

NOMINAL_FLOPS = 989e12
TINY: dict[str, Any] = {"is_tiny": True, "warmup_steps": 1, "steps": 2}
_CEILING_ESTIMATE_S = 20


def main() -> None:
    """Measure what fits into the budget, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--output", type=Path, help="file that the report is written to after each variant")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape on the CPU: proves the script")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no GPU here (no driver, or a CPU build of torch): --tiny runs the script on the CPU")
    prepare(tiny=options.tiny)
    variants = [dataclasses.replace(each, **TINY) for each in VARIANTS] if options.tiny else VARIANTS
    report = Bench("cpu" if options.tiny else "cuda", options).measure(variants)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)
    if not report["variants"]:
        sys.exit("nothing was measured")


def prepare(*, tiny: bool) -> None:
    """Say in which environment the variants live: that of the service's children.

    On a GPU nothing is imported before they are forked: bitsandbytes opens CUDA as it is imported, and a forked process
    cannot open it again.
    """
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if tiny:
        prepare_processes(threads=1)
    else:
        prepare_processes(threads=8, preloaded=())


class Bench:
    """One run of the bench, and its report so far."""

    def __init__(self, device: str, options: argparse.Namespace) -> None:
        self._device, self._output = device, options.output
        self._until = time.monotonic() + options.budget
        self._report: dict[str, Any] = {
            "measured_on": torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}), no GPU",
            "torch": torch.__version__,
            "matmul_tflops": None,
            "variants": {},
            "dropped": {},
        }

    def measure(self, variants: list[Variant]) -> dict[str, Any]:
        """Return the report; it is complete, or says what was dropped and why."""
        found = self._run("ceiling", _CEILING_ESTIMATE_S, measure_ceiling, self._device)
        self._report["matmul_tflops"] = found and found["tflops"]
        for variant in variants:
            started = time.monotonic()
            arguments = variant, self._device, started
            if found := self._run(variant.name, variant.estimate_s, measure_variant, *arguments):
                self._report["variants"][variant.name] = self._describe(variant, found)
            self._save()
        self._report["ratio"] = self._compare()
        self._save()
        return self._report

    def _run(self, name: str, estimate_s: float, measure: Any, *arguments: Any) -> dict[str, Any] | None:
        """Return what a process has measured; None where it was dropped, has failed, or took longer than there was."""
        print(f"{name} …", file=sys.stderr, flush=True)
        if time.monotonic() + estimate_s > self._until:
            self._report["dropped"][name] = f"less than {estimate_s:g} s of the budget were left"
            return None
        with tempfile.TemporaryDirectory(prefix="codelupe-bench-") as folder:
            contestant = Contestant.start(name, measure, *arguments, log=Path(folder) / "log")
            try:
                if contestant.pipe.poll(self._until - time.monotonic()):
                    contestant.finish()
                    return dict(contestant.last)
                self._report["dropped"][name] = "the budget was over before it was done"
            except RuntimeError as error:
                self._report["dropped"][name] = str(error).rstrip().rpartition("\n")[2]
            finally:
                contestant.close()
        return None

    def _describe(self, variant: Variant, found: dict[str, Any]) -> dict[str, Any]:
        """Put what was measured beside what was to be expected."""
        settings, shape, ceiling = variant.settings, variant.shape, self._report["matmul_tflops"]
        needed = model_flops(shape, settings.lora_rank, settings.sequence_tokens) * found["tokens_per_s"]
        on_gpu = self._device == "cuda"
        return {
            "size": "tiny" if variant.is_tiny else variant.size,
            "stack": variant.stack,
            "rank": settings.lora_rank,
            "quantisation": settings.quantisation,
            "profile": variant.profile,
            **found,
            "mfu": round(needed / NOMINAL_FLOPS, 4) if on_gpu else None,
            "of_ceiling": round(needed / ceiling / 1e12, 4) if on_gpu and ceiling else None,
        }

    def _compare(self) -> float | None:
        """Return ours over the mean of the stock runs before and after it."""
        rates = {name: found["tokens_per_s"] for name, found in self._report["variants"].items()}
        stock = [rates[name] for name in ("stock", "stock_again") if name in rates]
        return round(rates["ours"] / (sum(stock) / len(stock)), 3) if stock and "ours" in rates else None

    def _save(self) -> None:
        if self._output is not None:
            write_json(self._output, self._report)


def print_report(report: dict[str, Any]) -> None:
    """Print the report for people."""
    print(f"measured on {report['measured_on']}, torch {report['torch']}")
    print(f"matrix products  {report['matmul_tflops']} TFLOP/s")
    for name, found in report["variants"].items():
        mfu = "no GPU" if found["mfu"] is None else f"MFU {found['mfu']:.1%} ({found['of_ceiling']:.1%} of the ceiling)"
        planned = f", planned {found['planned_tensors_gib']}" if found["planned_tensors_gib"] else ""
        print(
            f"{name:17} {found['size']:4} {found['tokens_per_s']:>10,.0f} tokens/s  {mfu}  peak {found['peak_gib']} GiB"
            f"{planned}; first step {found['first_step_s']} s; {found['attention']}"
        )
        for note in found["notes"]:
            print(f"{'':17} {note}")
    for name, why in report["dropped"].items():
        print(f"{name:17} dropped: {why}")
    print(f"ours over stock  {report['ratio']}")


if __name__ == "__main__":
    main()
