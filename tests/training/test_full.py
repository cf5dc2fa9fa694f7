"""A base of one's own: rows read as they are needed, every weight trained, from scratch or from another base."""

import json
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon.config import TrainingSettings
from daemon.fitting import make_fit
from daemon.full_memory import FullShape
from daemon.job import MEMBERS, VALIDATION, Job, Recipe, Result
from daemon.samples import load_tokenizer
from daemon.training import passes as passes_module
from daemon.training import range_test as range_module
from daemon.training import stream as stream_module
from daemon.training import trainer as trainer_module
from daemon.training.architectures import make_model
from daemon.training.attention import DOCUMENTS, SDPA, Attention, choose_attention
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Failed, Stopped
from daemon.training.data import collate
from daemon.training.full import full
from daemon.training.model import head, hidden_at_targets
from daemon.training.range_test import range_test
from daemon.training.stream import StreamedRows
from tests.training.conftest import MICRO, make_items, write_items
from tests.training.test_child import started
from tests.training.test_resume import KILLED
from tests.training.test_rows import SAMPLES

MakeJob = Callable[..., tuple[Job, Path]]
# Two passes over the text of 16 items, in steps of 4 rows; a buffer of 8 rows makes several of each pass.
SHORT: dict[str, Any] = {"sequence_tokens": 128, "learning_rate": 1e-2, "quantisation": "none"}
NUM_TOKENS = 20_000


def make_full(make_job: MakeJob, architecture: str | None = "qwen2", **settings: Any) -> tuple[Job, Path]:
    recipe = Recipe(tokens=settings.pop("tokens", NUM_TOKENS), architecture=architecture)
    return make_job(16, fields={"kind": "base", "recipe": recipe.model_dump()}, **SHORT | settings)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "BUFFER_ROWS", 8)


def open_stream(make_job: MakeJob, num_rows: int = 200) -> StreamedRows:
    job, job_dir = make_job(16, **SHORT)
    return StreamedRows(job_dir / MEMBERS, load_base_tokenizer(job), job.settings, seed=7, num_rows=num_rows)


def ids_of(rows: StreamedRows, numbers: range) -> list[list[list[int]]]:
    return [[sample.input_ids.tolist() for sample in rows[number]] for number in numbers]


@pytest.mark.usefixtures("small_buffers")
def test_each_pass_over_a_stream_holds_every_document_once_in_another_order(make_job: MakeJob) -> None:
    rows = open_stream(make_job)
    passes: dict[int, list[str]] = {}
    for number in range(len(rows)):
        read = [str(sample.input_ids.tolist()) for sample in rows[number]]
        passes.setdefault(rows.place_of(number).epoch, []).extend(read)
    first, second = passes[0], passes[1]
    assert len({sample.item_id for number in range(40) for sample in rows[number]}) == 16
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.usefixtures("small_buffers")
def test_a_stream_goes_on_from_any_place_with_the_same_rows(make_job: MakeJob) -> None:
    rows = open_stream(make_job)
    expected = ids_of(rows, range(120))
    for number in (0, 1, 30, 77):
        later = open_stream(make_job)
        later.go_on_from(rows.place_of(number))
        assert ids_of(later, range(number, number + 40)) == expected[number : number + 40]


def test_a_stream_fills_its_rows(make_job: MakeJob) -> None:
    rows = open_stream(make_job)
    assert rows[150]
    assert rows.density(128) > 0.97


def test_text_that_gives_nothing_to_learn_is_the_datas_fault(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_full(make_job, None, tokens=500)
    write_items(job_dir / MEMBERS, [])
    with pytest.raises(Failed, match="no text") as caught:
        full(job, job_dir, recorder())
    assert caught.value.failure.reason == "data"


@pytest.mark.parametrize("attention", [SDPA, Attention("sdpa", DOCUMENTS, flat=True)], ids=["masked", "flat"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_documents_do_not_see_each_other_in_a_gpt2_either(
    base: Path, recorder: Any, attention: Attention, training: bool
) -> None:
    choose_attention("auto", "cpu", torch.float32, recorder())  # what it finds is registered
    torch.manual_seed(3)
    model = make_model(TrainingSettings(**MICRO), load_tokenizer(str(base)), attention.implementation, "gpt2").train(
        training
    )
    rows = [[SAMPLES[0], SAMPLES[1], SAMPLES[2]], [SAMPLES[3], SAMPLES[4]]]

    def logits(batch: Any) -> torch.Tensor:
        return (hidden_at_targets(model, batch, torch.float32) @ head(model).T).detach()

    alone = torch.cat([logits(collate([[sample]], flat=attention.flat)) for row in rows for sample in row])
    assert (logits(collate(rows, flat=attention.flat)) - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
@pytest.mark.usefixtures("small_buffers")
def test_a_base_from_scratch_learns_its_budget_and_resumes_to_the_bit(
    make_job: MakeJob, recorder: Any, architecture: str
) -> None:
    job, whole_dir = make_full(make_job, architecture)
    whole = recorder()
    full(job, whole_dir, whole)
    steps = whole.of("step")
    result = Result.model_validate_json((whole_dir / "result.json").read_text())
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.2
    measured = whole.of("eval")
    assert [measured[0]["step"], measured[-1]["step"]] == [0, len(steps)]
    assert measured[-1]["loss"] < measured[0]["loss"] - 0.2
    assert (result.validation_loss, result.validation_bits_per_byte) == (
        measured[-1]["loss"],
        measured[-1]["bits_per_byte"],
    )
    assert 0.85 * NUM_TOKENS < result.tokens <= NUM_TOKENS + 4 * 128  # rows of small buffers are less full
    model = AutoModelForCausalLM.from_pretrained(whole_dir / "base")
    assert model.config.model_type == architecture
    text = "def f(x):\n    return x  # é\n"
    tokenizer = AutoTokenizer.from_pretrained(whole_dir / "base")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    job, cut_dir = make_full(make_job, architecture)
    cut = recorder(lambda event: event["event"] == "step" and event["step"] == 23)  # in the second pass
    with pytest.raises(Stopped):
        full(job, cut_dir, cut)
    again = recorder()
    full(job, cut_dir, again)
    assert again.of("step")[0]["step"] == 24
    for name, undisturbed in (("step", steps), ("eval", measured)):
        assert [event["loss"] for event in cut.of(name) + again.of(name)] == [event["loss"] for event in undisturbed]
    expected, found = (load_file(folder / "base" / "model.safetensors") for folder in (whole_dir, cut_dir))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_is_held_out_teaches_nothing_nor_does_a_copy_of_it(make_job: MakeJob, recorder: Any) -> None:
    strange = "zeppelin_wyvern = quagga_bazaar + zeppelin_wyvern\n" * 20
    change = {"content": strange, "sha256": sha256(strange.encode()).hexdigest()}
    learned, left_out = make_items(100, 8, "base"), [make_items(120, 1, "base")[0].model_copy(update=change)]
    copies = [item.model_copy(update={"item_id": item.item_id + 30, "path": "copy.py"}) for item in left_out]
    made = []
    for members in ([*left_out, *learned, *copies], learned):
        job, job_dir = make_full(make_job, tokens=5000)
        write_items(job_dir / MEMBERS, members)
        write_items(job_dir / VALIDATION, left_out)
        full(job, job_dir, recorder())
        made.append({name: (job_dir / "base" / name).read_bytes() for name in ("tokenizer.json", "model.safetensors")})
    assert made[0] == made[1]


def test_a_base_learns_its_whole_budget_though_its_validation_loss_rises(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = count(5.0)
    monkeypatch.setattr(trainer_module, "measure", lambda *_: (next(rising), 1.0))
    job, job_dir = make_full(make_job, tokens=6000, patience=1)
    child = recorder()
    full(job, job_dir, child)
    measured = [event["loss"] for event in child.of("eval")]
    result = Result.model_validate_json((job_dir / "result.json").read_text())
    assert len(measured) > 2
    assert measured[-1] == max(measured) == result.validation_loss
    assert (result.steps, result.stopped_early) == (result.steps_planned, False)


def test_a_base_without_anything_held_out_is_made_unmeasured(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_full(make_job, tokens=1000)
    write_items(job_dir / VALIDATION, [])
    child = recorder()
    full(job, job_dir, child)
    assert child.of("eval") == []
    assert Result.model_validate_json((job_dir / "result.json").read_text()).validation_loss is None


def test_a_killed_process_loses_nothing_of_a_stream(make_job: MakeJob, recorder: Any) -> None:
    every_step = {"tokens": 5000, "checkpoint_interval_s": 1e-9}
    job, whole_dir = make_full(make_job, **every_step)
    full(job, whole_dir, recorder())
    job, cut_dir = make_full(make_job, **every_step)
    with started("full", cut_dir, failpoints="checkpoint.before_rename=kill@4") as child:
        assert child.stdout is not None
        child.stdout.read()
        assert child.wait() == KILLED
    again = recorder()
    full(job, cut_dir, again)
    assert again.of("step")[0]["step"] == 4
    assert (cut_dir / "base" / "model.safetensors").read_bytes() == (
        whole_dir / "base" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_recomputed_layers_and_smaller_passes_change_nothing_that_is_learned(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    made, recomputed = {}, []
    checkpoint = passes_module.checkpoint
    monkeypatch.setattr(passes_module, "checkpoint", lambda *a, **k: recomputed.append(layers) or checkpoint(*a, **k))
    for layers in (0, "all"):
        job, job_dir = make_full(make_job, architecture, tokens=3000, num_layers=2, checkpointed_layers=layers)
        full(job, job_dir, recorder())
        made[layers] = load_file(job_dir / "base" / "model.safetensors")
    assert set(recomputed) == {"all"}
    assert all(torch.equal(made[0][name], made["all"][name]) for name in made[0])
    real, seen = trainer_module.sum_losses, []

    def scarce(*tensors: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        if len(seen) == 3:  # in the third step, once
            raise MemoryError("no room")
        return real(*tensors)

    monkeypatch.setattr(trainer_module, "sum_losses", scarce)
    job, job_dir = make_full(make_job, architecture, tokens=3000, num_layers=2)
    child = recorder()
    full(job, job_dir, child)
    result = Result.model_validate_json((job_dir / "result.json").read_text())
    assert [(plan["micro_batch"], plan["accumulation"]) for plan in child.of("plan")] == [(4, 1), (2, 2)]
    assert (result.num_out_of_memory, result.micro_batch) == (1, 2)
    assert [event["step"] for event in child.of("step")] == list(range(1, result.steps_planned + 1))
    found = load_file(job_dir / "base" / "model.safetensors")
    assert all((made[0][name] - found[name]).abs().max() <= 1e-3 for name in found)


def test_the_way_of_a_base_is_chosen_for_the_memory_there_is_and_kept(make_job: MakeJob, recorder: Any) -> None:
    deep = {"tokens": 1500, "num_layers": 3, "checkpointed_layers": "auto", "micro_batch": 1, "accumulation": 4}
    job, _ = make_full(make_job, **deep)
    shape = FullShape.of_settings(job.settings, "qwen2")
    fit = make_fit(shape, job.settings, "cpu", "sdpa", 1, 1)
    job, job_dir = make_full(make_job, **deep, memory_gib=fit.memory.total / 2**30)
    child = recorder()
    full(job, job_dir, child)
    (told,) = child.of("plan")
    result = Result.model_validate_json((job_dir / "result.json").read_text())
    assert (told["micro_batch"], told["checkpointed_layers"]) == (1, 1)
    assert (result.checkpointed_layers, result.planned_bytes) == (1, told["planned_bytes"])
    assert told["memory"]["weights"] == 4 * result.trainable_parameters
    assert told["memory"]["optimizer"] == 2 * told["memory"]["gradients"] == 2 * told["memory"]["weights"]


def test_full_training_changes_every_weight_of_a_copy(make_job: MakeJob, recorder: Any, base: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    job, job_dir = make_full(make_job, None, tokens=3000)
    full(job, job_dir, recorder())
    assert (base / "model.safetensors").read_bytes() == before
    old, new = (load_file(folder / "model.safetensors") for folder in (base, job_dir / "base"))
    assert old.keys() == new.keys()
    assert [name for name in old if torch.equal(old[name], new[name])] == []
    said = [AutoTokenizer.from_pretrained(folder).chat_template for folder in (base, job_dir / "base")]
    assert said[0] == said[1]


def test_half_precision_without_a_scaler_is_refused(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_full(make_job, compute_dtype="float16")
    with pytest.raises(Failed, match="float16 needs a GPU") as caught:
        full(job, job_dir, recorder())
    assert caught.value.failure.reason == "device"


def test_bfloat16_learns_as_float32_does(make_job: MakeJob, recorder: Any) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        job, job_dir = make_full(make_job, tokens=5000, compute_dtype=dtype, learning_rate=3e-3)
        child = recorder()
        full(job, job_dir, child)
        losses.append([event["loss"] for event in child.of("step")])
        saved = load_file(job_dir / "base" / "model.safetensors")
        assert {tensor.dtype for tensor in saved.values()} == {getattr(torch, dtype)}
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_a_range_test_raises_the_rate_until_the_loss_runs_away_and_keeps_no_weights(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The micro base's loss cannot run away: its head is too small to be that sure of anything.
    monkeypatch.setattr(range_module, "has_diverged", lambda losses: len(losses) == 25)
    job, job_dir = make_job(4, fields={"rates": {"steps": 30, "low": 1e-4, "high": 1.0}})
    range_test(job, job_dir, recorder())
    points = json.loads((job_dir / "points.json").read_text())["points"]
    assert [point["rate"] for point in points] == pytest.approx([1e-4 * 10 ** (4 * step / 29) for step in range(25)])
    assert min(point["smoothed"] for point in points) < points[0]["smoothed"]
    assert [*job_dir.rglob("*.safetensors"), *job_dir.rglob("result.json")] == []
