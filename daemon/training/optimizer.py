"""AdamW: of an adapter with states of 8 bits, one wait for the device in a step at most; of all weights torch's own."""

# bitsandbytes has no types.
# mypy: disable-error-code="no-untyped-call"

from typing import Any

import torch
from bitsandbytes.optim.adamw import AdamW
from bitsandbytes.utils import sync_gpu

from daemon.config import TrainingSettings
from daemon.training.progress import Plan


class AdamW8bit(AdamW):
    """bitsandbytes' own, without its wait for the GPU after each of hundreds of tensors: one stream keeps the order.

    Nor is the embedding entered in bitsandbytes' register, which would keep a model alive that gave up its memory.
    """

    def __init__(self, params: Any, *, paged: bool, **options: Any) -> None:
        super().__init__(params, optim_bits=8, is_paged=paged, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - no closure is called
        """Take one step with the gradients that are there."""
        if not self.initialized:
            self.check_overrides()
            self.to_gpu()
            self.initialized = True
        for group_index, group in enumerate(self.param_groups):
            for index, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    self._step_one(group, weight, group_index, index)
        if self.is_paged:
            sync_gpu(weight)  # the host may read these states

    def _step_one(self, group: dict[str, Any], weight: torch.nn.Parameter, group_index: int, index: int) -> None:
        if not self.state[weight]:
            self.init_state(group, weight, group_index, index)
        self.prefetch_state(weight)
        self.update_step(group, weight, group_index, index)

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Take over saved states: into pages where these are paged, whatever they were when they were saved."""
        super().load_state_dict(state_dict, move_to_device)
        for weight, state in self.state.items():
            for name in ("state1", "state2"):
                if name in state:
                    pages = self.get_state_buffer(weight, state[name].dtype)
                    state[name] = pages.copy_(state[name])


def full_optimizer(settings: TrainingSettings) -> str:
    """Return transformers' name of the AdamW that trains all weights.

    torch's fused one takes no memory beside its states, and a quarter of the time. It skips steps in float16 whose
    gradients overflow by itself, though, and then nobody else sees it: the schedule would go on without it.
    """
    return "adamw_torch" if settings.compute_dtype == "float16" else "adamw_torch_fused"


def choose_optimizer(plan: Plan) -> tuple[type[AdamW8bit], dict[str, Any]] | None:
    """Return class and options for a plan; None: torch's own, which transformers makes."""
    if plan.optimizer.startswith("adamw_torch"):
        return None
    paged = plan.optimizer == "paged_adamw_8bit"
    return AdamW8bit, {"lr": plan.learning_rate, "betas": (0.9, plan.adam_beta2), "eps": 1e-8, "paged": paged}
