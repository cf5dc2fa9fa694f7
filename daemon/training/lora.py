"""The adapter: made new or continued from the incumbent's, and kept apart from the base for ever."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from daemon.job import Job
from daemon.training.base_files import find_base_file
from daemon.training.child import Failed
from daemon.training.kernels import PLAIN, Kernels
from daemon.training.layers import use_kernels
from daemon.training.model import keep_trainable
from daemon.training.principal import begin_principal
from daemon.training.projections import share_inputs

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WEIGHTS = "adapter_model.safetensors"
State = dict[str, Tensor]


def attach_adapter(base: Any, job: Job, kernels: Kernels = PLAIN) -> Any:
    """Put a trainable adapter on the base: a new one, or one with the weights that the job continues."""
    if job.continued is not None:
        _refuse_to_continue(job)
        model = PeftModel.from_pretrained(base, str(_check(job.continued)), is_trainable=True)
    else:
        model = get_peft_model(base, LoraConfig(**_shape(job), task_type="CAUSAL_LM"))
        if job.settings.adapter_init == "pissa":
            begin_principal(model, find_base_file(job, "config.json").parent, job.settings.lora_rank)
    share_inputs(model, kernels)
    use_kernels(model, kernels)
    # Not prepare_model_for_kbit_training: it would turn embeddings, norms and head into fp32.
    keep_trainable(model)
    return model


def _refuse_to_continue(job: Job) -> None:
    if job.settings.adapter_init == "pissa":
        raise Failed(
            "exception",
            f"adapter_init='pissa' begins an adapter from the base's weights and cannot continue {job.continued}: "
            "set CODELUPE_ADAPTER_INIT=default for the rounds after the first",
        )


def _shape(job: Job) -> dict[str, Any]:
    settings = job.settings
    return {
        "r": settings.adapter_rank,
        "lora_alpha": settings.lora_alpha * settings.adapter_rank // settings.lora_rank,
        "use_rslora": settings.rslora,
        "target_modules": TARGETS,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def load_adapters(base: Any, folders: dict[str, Path]) -> Any:
    """Put finished adapters side by side on one base, by name, to evaluate or complete with."""
    model: Any = None
    for name, folder in folders.items():
        if model is None:
            model = PeftModel.from_pretrained(base, str(_check(folder)), adapter_name=name)
        else:
            model.load_adapter(str(_check(folder)), adapter_name=name)
    keep_trainable(model)
    return model


def _check(folder: Path) -> Path:
    """Return the folder; raise Failed where its weights are no safetensors: peft would unpickle others."""
    if not (folder / WEIGHTS).is_file():
        raise Failed("exception", f"the adapter {folder} has no {WEIGHTS}, and no other file of weights is loaded")
    return folder


def trainable_state(model: Any) -> State:
    """Copy every trained parameter to host memory."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def restore_state(model: Any, state: State) -> None:
    """Put back what `trainable_state` copied; raise KeyError where the parameters are not the same ones."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if parameters.keys() != state.keys():
        raise KeyError(f"the checkpoint has {len(state)} trained tensors, this model {len(parameters)}")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def save_adapter(model: Any, job: Job, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which name the base and no path of this machine."""
    save_file(get_peft_model_state_dict(model, save_embedding_layers=False), folder / WEIGHTS)
    config = model.peft_config["default"]
    config.base_model_name_or_path = job.settings.base_model
    config.revision = job.base_revision
    config.target_modules = TARGETS  # peft keeps a set, whose order differs from process to process
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False
