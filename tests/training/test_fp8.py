"""An FP8 base: the same loss as its own weights, or it is refused; the trained adapter is as good."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from daemon.config import TrainingSettings
from daemon.files import digest_folder
from daemon.job import Job
from daemon.memory import Pass, activation_bytes
from daemon.samples import load_tokenizer
from daemon.training.base import load_base
from daemon.training.child import Failed
from daemon.training.data import collate
from daemon.training.fp8 import Fp8Linear
from daemon.training.lora import attach_adapter
from daemon.training.loss import sum_losses
from daemon.training.model import decoder, head, hidden_at_targets
from daemon.training.passes import checkpoint_layers
from daemon.training.rows import Row, build_samples_of, pack_rows
from daemon.training.train import train
from tests.training.conftest import MICRO, make_items
from tests.training.test_memory import SHAPE, make_adapted, measure_saved

MakeJob = Callable[..., tuple[Job, Path]]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def trained_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro base after a short training of all its weights: what it stores decides its loss."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "base"
    shutil.copytree(base, folder)
    settings = TrainingSettings(**MICRO)
    samples = build_samples_of(make_items(0, 24, "train"), load_tokenizer(str(base)), settings, seed=1)
    rows = pack_rows(list(samples), settings.sequence_tokens, seed=1).rows
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(30):
        batch = collate([rows[(4 * step + k) % len(rows)] for k in range(4)], flat=False)
        loss = sum_losses(hidden_at_targets(model, batch, torch.float32), head(model), batch["targets"])
        (loss / len(batch["targets"])).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt_base(trained_base: Path, tmp_path: Path) -> Path:
    """That base with outliers that change nothing of what it says, as long as all of a row can be told apart."""
    folder = tmp_path / "spoilt"
    shutil.copytree(trained_base, folder)
    weights = load_file(folder / WEIGHTS)
    hide_outliers(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def hide_outliers(weights: dict[str, torch.Tensor]) -> None:
    """Let each row of the MLP begin with a huge weight of an input that is always 0: its scale fits nothing else."""
    weights["model.layers.0.post_attention_layernorm.weight"][0] = 0
    for name in ("gate", "up"):
        weights[f"model.layers.0.mlp.{name}_proj.weight"][:, 0] = 1e6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_within_the_half_of_their_last_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(96, 64, dtype=dtype)
    rows = torch.logspace(-4, 3, 64, dtype=torch.float64)[:, None]
    linear.weight.data = (torch.randn(64, 96, dtype=torch.float64) * rows).to(dtype)
    linear.weight.data[0] = 0

    found = Fp8Linear(linear).unpack(dtype)

    weight = linear.weight.detach().double()
    half_of_smallest = weight.abs().amax(1, keepdim=True) * 2**-16 + torch.finfo(dtype).tiny * 2**-9
    error = (found.double() - weight).abs()
    assert bool((error <= weight.abs() * 1.1 * 2**-4 + half_of_smallest).all())
    assert bool((found[0] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_unpacked_weight(dtype: torch.dtype) -> None:
    stored = Fp8Linear(nn.Linear(96, 64, dtype=dtype))
    x, same = torch.randn(2, 2, 5, 96, dtype=dtype).unbind()
    same.copy_(x)
    x.requires_grad_()
    same.requires_grad_()

    out, expected = stored(x), nn.functional.linear(same, stored.unpack(dtype), stored.bias)
    for one in (out, expected):
        one.square().sum().backward()

    assert torch.equal(out, expected)
    torch.testing.assert_close(x.grad, same.grad)


def test_no_unpacked_weight_is_kept_for_the_backward_pass() -> None:
    model, settings = make_adapted("bfloat16", "fp8", 16)
    one_pass = Pass(1, 128, 0, "sdpa")
    checkpoint_layers(model, 0)

    planned = activation_bytes(SHAPE, settings, one_pass)

    assert planned == pytest.approx(measure_saved(model, settings, one_pass), rel=0.01)


def test_only_the_layers_inside_the_blocks_are_stored_so(make_job: MakeJob) -> None:
    model = load_base(make_job(1, quantisation="fp8")[0])

    kinds = {type(module) for module in decoder(model).layers.modules() if isinstance(module, nn.Linear)}
    assert kinds == {Fp8Linear}
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is decoder(model).embed_tokens.weight


def test_a_run_ends_within_a_third_of_a_percent_of_the_one_on_the_plain_base(
    make_job: MakeJob, trained_base: Path, recorder: Any
) -> None:
    fields, results = {"base": str(trained_base)}, []
    for quantisation in ("none", "fp8"):
        job, job_dir = make_job(8, fields=fields, quantisation=quantisation)
        child = recorder()
        train(job, job_dir, child)
        results.append((json.loads((job_dir / "result.json").read_text()), child.of("note")))

    (plain, _), (stored, notes) = results
    assert stored["final_loss"] == pytest.approx(plain["final_loss"], rel=0.003)
    assert stored["best_eval_loss"] == pytest.approx(plain["best_eval_loss"], rel=0.003)
    assert "fp8_compared" in [note["note"] for note in notes]


@pytest.fixture
def rows(trained_base: Path) -> list[Row]:
    """A few rows to compare losses on."""
    samples = build_samples_of(
        make_items(0, 2, "train"), load_tokenizer(str(trained_base)), TrainingSettings(**MICRO), seed=1
    )
    return pack_rows(list(samples), MICRO["sequence_tokens"]).rows


def test_it_is_kept_with_its_comparison_and_gives_the_same_bits_and_gradients(
    make_job: MakeJob, trained_base: Path, rows: list[Row], recorder: Any, tmp_path: Path
) -> None:
    job, _ = make_job(1, fields={"base": str(trained_base), "base_cache": tmp_path / "cache"}, quantisation="fp8")
    first, second = recorder(), recorder()
    afresh = load_base(job, note=first.note, check_on=rows)
    (kept,) = (path for path in job.base_cache.iterdir() if path.is_dir())
    loaded = load_base(job, note=second.note)

    assert (afresh.name_or_path, loaded.name_or_path) == (str(trained_base), str(kept))
    assert afresh.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in afresh.state_dict().items())
    told = [child.of("note")[0]["message"] for child in (first, second)]
    assert json.loads((kept / "manifest.json").read_text())["fp8_compared"] == told[0]
    assert told[1] == f"{told[0]}, when it was made"
    batch, found = collate(rows, flat=False), []
    for model in (afresh, loaded):
        torch.manual_seed(3)
        adapted = attach_adapter(model, job)
        loss = sum_losses(hidden_at_targets(adapted, batch, torch.float32), head(adapted), batch["targets"])
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in adapted.parameters() if p.grad is not None)])
    assert len(found[0]) > 1
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("harm", ["a flipped bit", "a tensor lost, with a manifest that fits"])
def test_a_damaged_one_is_made_anew(
    make_job: MakeJob, trained_base: Path, rows: list[Row], recorder: Any, tmp_path: Path, harm: str
) -> None:
    job, _ = make_job(1, fields={"base": str(trained_base), "base_cache": tmp_path / "cache"}, quantisation="fp8")
    child = recorder()
    load_base(job, check_on=rows)
    (kept,) = (path for path in job.base_cache.iterdir() if path.is_dir())
    if harm == "a flipped bit":
        data = bytearray((kept / WEIGHTS).read_bytes())
        data[-5] ^= 1
        (kept / WEIGHTS).write_bytes(data)
    else:
        weights = load_file(kept / WEIGHTS)
        del weights["model.layers.0.mlp.up_proj.scale"]
        save_file(weights, kept / WEIGHTS, {"format": "pt"})
        manifest = json.loads((kept / "manifest.json").read_text())
        manifest["files"] = digest_folder(kept, without="manifest.json")
        (kept / "manifest.json").write_text(json.dumps(manifest))

    assert load_base(job, note=child.note, check_on=rows).name_or_path == str(trained_base)
    assert load_base(job).name_or_path == str(kept)
    assert "base_cache_damaged" in [note["note"] for note in child.of("note")]


def test_one_that_was_compared_on_nothing_is_not_kept(make_job: MakeJob, tmp_path: Path) -> None:
    job, _ = make_job(1, fields={"base_cache": tmp_path / "cache"}, quantisation="fp8")

    load_base(job)

    assert not job.base_cache.exists()


REFUSAL = r"is \d\.\d{4} in FP8 and \d\.\d{4} unquantised: they differ.*CODELUPE_QUANTISATION=none"


def test_a_base_whose_rows_no_scale_fits_is_refused_with_both_losses_and_what_to_set(
    make_job: MakeJob, spoilt_base: Path, recorder: Any
) -> None:
    job, job_dir = make_job(8, fields={"base": str(spoilt_base)}, quantisation="fp8")

    with pytest.raises(Failed, match=REFUSAL):
        train(job, job_dir, recorder())


def test_scales_that_are_a_tenth_too_large_are_found(
    make_job: MakeJob, trained_base: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack = Fp8Linear.unpack
    monkeypatch.setattr(Fp8Linear, "unpack", lambda layer, dtype: 1.1 * unpack(layer, dtype))
    job, job_dir = make_job(8, fields={"base": str(trained_base)}, quantisation="fp8")

    with pytest.raises(Failed, match=REFUSAL):
        train(job, job_dir, recorder())
