"""Fused kernels count once they have given plain torch's outputs and gradients; else a run goes on without them."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from daemon.job import Job
from daemon.training import elementwise
from daemon.training.kernels import PLAIN, choose_kernels, make_liger
from daemon.training.passes import checkpoint_layers
from daemon.training.train import train
from tests.training.test_projections import difference, learn, make_pair
from tests.training.test_rows import make_sample

MakeJob = Callable[..., tuple[Job, Path]]


class Liger:
    """liger-kernel's functions as its version 0.8.5 has them, which overwrite what they are given."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()

    def call(self, name: str, *given: Any, **more: Any) -> Any:
        self.called[name] += 1
        return getattr(self, name)(*given, **more)

    def rms_norm_forward(
        self, x: Tensor, weight: Tensor, eps: float, offset: float, casting_mode: int, row_mode: bool
    ) -> tuple[Any, ...]:
        assert (offset, casting_mode, row_mode) == (0.0, 1, False)
        out, inverse = elementwise.rms_norm(x.view(-1, x.shape[-1]), weight, eps)
        return out.view(x.shape), x.view(-1, x.shape[-1]), inverse.flatten(), *self.calculate_settings(1), casting_mode

    def rms_norm_backward(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        inverse: Tensor,
        offset: float,
        casting_mode: int,
        block_size: int,
        num_warps: int,
        in_place: bool,
        row_mode: bool,
        needs_dw: bool | None = None,
    ) -> tuple[Tensor, None]:
        assert (offset, casting_mode, block_size, num_warps, in_place, row_mode, needs_dw) == (
            *(0.0, 1, 128, 4, False, False, False),
        )
        return elementwise.rms_norm_back(grad.view(x.shape), x, weight, inverse[:, None]).view(grad.shape), None

    def rope_forward(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        turned = elementwise.rotate(query, key, cos, sin)
        return query.copy_(turned[0]), key.copy_(turned[1]), cos, sin

    def rope_backward(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        turned = elementwise.rotate_back(query, key, cos, sin)
        return query.copy_(turned[0]), key.copy_(turned[1])

    def swiglu_forward(self, gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        return gate, up, elementwise.swiglu(gate, up)

    def swiglu_backward(self, gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        to_gate, to_up, _ = elementwise.swiglu_back(grad.clone(), gate, up)
        return gate.copy_(to_gate), up.copy_(to_up)

    def calculate_settings(self, size: int) -> tuple[int, int]:
        return 128, 4


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> Liger:
    """Its functions, where liger-kernel keeps them."""
    made = Liger()
    for name in ("rms_norm", "rope", "swiglu", "utils"):
        module = ModuleType(f"liger_kernel.ops.{name}")
        monkeypatch.setattr(module, "__getattr__", partial(partial, made.call), raising=False)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("liger_kernel", "liger_kernel.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return made


def passed_over(wanted: str, recorder: Any, dtype: torch.dtype = torch.float32) -> str:
    """Return the note that says why the wanted kernels are not used, or nothing where they are."""
    child = recorder()
    chosen = choose_kernels(wanted, "cpu", dtype, child)
    notes = child.of("note")
    assert [note["note"] for note in notes] == ["kernels_passed_over"] * (chosen is PLAIN)
    return notes[0]["message"] if notes else ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_that_give_the_same_are_used(liger: Liger, dtype: torch.dtype, recorder: Any) -> None:
    assert passed_over("liger", recorder, dtype) == ""


def forget_the_weight(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda grad, x, weight, *others, **more: right(grad, x, torch.ones_like(weight), *others, **more)


@pytest.mark.parametrize(
    ("broken", "wrong", "said"),
    [
        (
            "rms_norm_forward",
            lambda right: lambda x, weight, *others: right(x, 1.001 * weight, *others),
            "norm differs",
        ),
        ("rms_norm_backward", forget_the_weight, "norm's gradient differs"),
        ("rope_forward", lambda right: lambda q, k, cos, sin: (torch.full_like(q, torch.nan), k), "query differs"),
        ("rope_backward", lambda right: lambda q, k, cos, sin: right(q, k, cos, -sin), "query's gradient differs"),
        ("swiglu_forward", lambda right: lambda gate, up: right(up, gate), "silu(gate)·up differs"),
        ("swiglu_backward", lambda right: lambda gate, up, grad: right(gate, up, 2 * grad), "gate's gradient differs"),
        ("swiglu_backward", lambda right: lambda: None, "TypeError"),
    ],
)
def test_kernels_that_differ_or_fail_are_passed_over_with_the_reason(
    liger: Liger, broken: str, wrong: Callable[..., Any], said: str, recorder: Any
) -> None:
    setattr(liger, broken, wrong(getattr(liger, broken)))
    message = passed_over("liger", recorder)
    assert message.startswith("fused_kernels=liger is not used: ")
    assert said in message


@pytest.mark.parametrize("layers", [0, 1])
def test_with_kernels_that_overwrite_what_they_are_given_all_gradients_are_those_of_peft(
    liger: Liger, make_job: MakeJob, layers: int
) -> None:
    ours, theirs = make_pair(make_job, make_liger())
    checkpoint_layers(ours, layers)
    (out, gradients), (expected_out, expected) = learn(ours), learn(theirs)
    parts = {f"{part}_{way}" for part in ("rms_norm", "rope", "swiglu") for way in ("forward", "backward")}
    assert parts < set(liger.called)
    assert difference(out, expected_out) <= 1e-6
    assert max(difference(gradients[name], gradient) for name, gradient in expected.items()) <= 1e-5


def leave_as_it_is(function: Any, *, dynamic: bool, fullgraph: bool) -> Any:
    assert dynamic, "rows of another length would be compiled again"
    return function


def find_no_compiler(function: Any, **_: Any) -> Any:
    def fail(*_: Any) -> None:
        raise RuntimeError("backend='inductor' raised:\nNo working C++ compiler found\n" + 9999 * "in many lines\n")

    return fail


@pytest.mark.parametrize(
    ("compiler", "version", "said"),
    [
        (leave_as_it_is, "2.13.0+cpu", ""),
        (
            find_no_compiler,
            "2.13.0+cpu",
            "not used: RuntimeError: backend='inductor' raised: No working C++ compiler found in",
        ),
        (leave_as_it_is, "2.10.1", "torch 2.10.1 may compile to wrong gradients"),
    ],
)
def test_compiled_ones_take_a_compiler_and_a_torch_that_compiles_right(
    compiler: Callable[..., Any], version: str, said: str, monkeypatch: pytest.MonkeyPatch, recorder: Any
) -> None:
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    message = passed_over("compile", recorder)
    assert said in message
    assert bool(said) == bool(message)
    assert len(message) < 400


@pytest.mark.parametrize("used", ["liger", "torch"])
def test_the_result_of_a_run_says_whose_were_used(
    make_job: MakeJob, recorder: Any, liger: Liger, monkeypatch: pytest.MonkeyPatch, used: str
) -> None:
    if used == "torch":
        monkeypatch.setitem(sys.modules, "liger_kernel.ops.rms_norm", None)
    job, job_dir = make_job(4, fused_kernels="liger")
    child = recorder()
    train(job, job_dir, child)
    assert json.loads((job_dir / "result.json").read_text())["kernels"] == used
    assert (liger.called["rms_norm_forward"] > 1) is (used == "liger")  # once in the comparison before the run
    assert ("kernels_passed_over" in {note["note"] for note in child.of("note")}) is (used == "torch")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch's own compiler, as it is imported
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_for_real_they_give_the_same_and_serve_rows_of_any_length(
    make_job: MakeJob, recorder: Any, dtype: torch.dtype
) -> None:
    from torch._dynamo.utils import counters  # torch's compiler, which no other test waits for

    assert shutil.which("g++"), "g++ is missing: apt-get install g++ (.ci/apt-packages)"
    child = recorder()
    kernels = choose_kernels("compile", "cpu", dtype, child)
    assert (kernels.name, child.of("note")) == ("compile", [])
    ours, theirs = make_pair(make_job, kernels, compute_dtype=str(dtype).removeprefix("torch."), quantisation="none")

    num_compiled = []
    for length in (90, 61, 140, 33):
        rows = [[make_sample(length, 10, 1)], [make_sample(length - 7, 0, 2)]]
        out, _ = learn(ours, dtype, rows)
        expected, _ = learn(theirs, dtype, rows)
        assert difference(out, expected) <= (1e-6 if dtype == torch.float32 else 0.02)
        num_compiled.append(counters["stats"]["unique_graphs"])

    gradients = [{name: w.grad for name, w in model.named_parameters() if w.requires_grad} for model in (ours, theirs)]
    worst = max(difference(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
    assert worst <= (1e-5 if dtype == torch.float32 else 0.05)
    assert len(set(num_compiled)) == 1
