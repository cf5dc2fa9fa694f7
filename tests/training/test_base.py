"""The base model: not reachable, broken, or another one; and the one that is served over HTTP."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from daemon.job import Job, Result
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Failed
from tests.training.fake_hub import ANSWERS, COMMIT, Handler, Hub, LoginPage, serving

MakeJob = Callable[..., tuple[Job, Path]]
TOKEN = "hf_averysecrettoken"
WAYS = [*ANSWERS, "garbage", "truncated", "redirected", "hanging"]


@pytest.fixture(scope="module")
def hub(base: Path) -> Iterator[Hub]:
    with serving(LoginPage) as stranger, serving(Handler, base, stranger) as hub:
        yield hub


def environment(endpoint: str, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HUB_ETAG_TIMEOUT": "60",
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
        "WANDB_MODE": "disabled",
    }


def load_each(endpoint: str, job_dir: Path, home: Path, bases: list[str]) -> dict[str, dict[str, Any]]:
    """Load bases in a process of its own; return the failure by base, without one for those that load."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.training.fake_hub", str(job_dir), *bases],
        env=environment(endpoint, home), check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def failures(hub: Hub, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each way of not serving a base ends in."""
    home = tmp_path_factory.mktemp("home")
    job = {"line": "micro", "run": 1, "kind": "adapter", "seed": 7, "device": "cpu", "base": "unset"}
    (home / "job.json").write_text(json.dumps({**job, "settings": {"compute_dtype": "float32"}}))
    return load_each(hub.url, home, home, [f"{way}/model" for way in [*WAYS, "whole"]])


@pytest.mark.parametrize("way", WAYS)
def test_a_base_that_the_hub_does_not_give_is_named_with_the_hub_and_what_to_set(
    failures: dict[str, dict[str, Any]], hub: Hub, way: str
) -> None:
    failure = failures[f"{way}/model"]
    assert failure["reason"] == "base_missing"
    assert not failure["data_caused"]
    for words in (
        f"{way}/model",
        "v1.5",
        hub.url,
        "CODELUPE_BASE_MODEL",
        "CODELUPE_BASE_REVISION",
        "HF_TOKEN",
        "HF_ENDPOINT",
    ):
        assert words in failure["message"]
    assert "\n" not in failure["message"]


SAID = {
    "missing": "404",
    "gated-401": "401",
    "gated-403": "403",
    "busy": "503",
    "garbage": r"(config|tokenizer)\.json",
    "truncated": r"model\.safetensors is damaged",
    "redirected": "X-Repo-Commit|commit",
    "hanging": "[Tt]imed? ?out",
}


@pytest.mark.parametrize(("way", "words"), SAID.items(), ids=SAID)
def test_it_says_what_the_hub_answered(failures: dict[str, dict[str, Any]], way: str, words: str) -> None:
    assert re.search(words, failures[f"{way}/model"]["message"])


def test_no_token_is_told_and_none_is_sent_elsewhere(failures: dict[str, dict[str, Any]], hub: Hub) -> None:
    assert TOKEN not in json.dumps(failures)
    assert f"Bearer {TOKEN}" in hub.tokens
    assert hub.stranger.tokens == []


def test_the_one_that_is_served_loads(failures: dict[str, dict[str, Any]]) -> None:
    assert "whole/model" not in failures


def test_nobody_listening_is_told_with_the_address(make_job: MakeJob, tmp_path: Path) -> None:
    _, job_dir = make_job(1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refused
        endpoint = f"http://user:password@127.0.0.1:{unused.getsockname()[1]}"
        failure = load_each(endpoint, job_dir, tmp_path, ["some/model"])["some/model"]
    assert failure["reason"] == "base_missing"
    assert "refused" in failure["message"]
    assert endpoint.replace("user:password@", "") in failure["message"]
    assert "password" not in failure["message"]


def test_a_base_on_the_hub_is_trained_on_and_its_commit_recorded(make_job: MakeJob, hub: Hub, tmp_path: Path) -> None:
    _, job_dir = make_job(2, fields={"base": "whole/model"})
    child = subprocess.Popen(
        [sys.executable, "-m", "daemon.training", "train", str(job_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(hub.url, tmp_path),
    )  # fmt: skip
    with child:
        assert child.wait() == 0
    assert Result.model_validate_json((job_dir / "result.json").read_text()).base_revision == COMMIT


def test_code_that_comes_with_a_base_is_not_run(make_job: MakeJob, base: Path, tmp_path: Path) -> None:
    folder, trace = Path(shutil.copytree(base, tmp_path / "base")), tmp_path / "trace"
    (folder / "modeling_own.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Own: ...\n")
    config = json.loads((folder / "config.json").read_text())
    maps = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": maps}))
    assert type(load_base(make_job(1, fields={"base": str(folder)})[0])).__module__.startswith("transformers.")
    assert not trace.exists()


def truncate_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lose_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def set_type(folder: Path, model_type: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type, "architectures": []}))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights cut short": (truncate_weights, r"model\.safetensors is damaged"),
    "pickled weights": (pickle_weights, r"model\.safetensors"),
    "a tensor lost": (lose_a_tensor, r"lack 1 tensors: model\.layers\.0\.mlp\.up_proj\.weight"),
    "another kind of model": (lambda folder: set_type(folder, "bert"), "."),
    "an unknown kind of model": (lambda folder: set_type(folder, "qwen99"), "qwen99"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "."),
    "a config cut short": (lambda folder: (folder / "config.json").write_text('{"model_type": "qw'), r"config\.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json is not there"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json is not there"),
    "a tokenizer cut short": (
        lambda folder: (folder / "tokenizer.json").write_text('{"mo'),
        r"tokenizer\.json is damaged",
    ),
    "a tokenizer of something else": (
        lambda folder: (folder / "tokenizer.json").write_text("[1]"),
        r"tokenizer\.json is damaged",
    ),
}


@pytest.mark.parametrize(("harm", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_folder_with_a_broken_base_is_refused(
    make_job: MakeJob, base: Path, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    harm(folder)
    job, _ = make_job(1, fields={"base": str(folder)})
    with pytest.raises(Failed, match=words) as caught:
        (load_base_tokenizer(job), load_base(job))
    failure = caught.value.failure
    assert failure.reason == "base_missing"
    assert not failure.data_caused
    assert str(folder) in failure.message
    assert "CODELUPE_BASE_MODEL" in failure.message
