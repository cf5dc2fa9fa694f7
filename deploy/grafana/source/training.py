"""Training run: the child, live."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import Json, bad_above, graph, red_above, stat, states, table

_DAEMON = '{job="codelupe-daemon"}'
_RATE = "[$__rate_interval]"


def make() -> Json:
    """Return the dashboard."""
    return dashboard(
        "training",
        "Training run",
        "The open run, live. Its figures vanish with the training child; what came of it is on Models.",
        row("Where it is", *_place()),
        row("What it learns", *_learning()),
        row("How fast", *_speed()),
        row("What is safe", *_safety()),
        row("What it takes", *_memory()),
        refresh="5s",
    )


def _place() -> list[Json]:
    return [
        stat(
            "Run",
            "Number of the open run, or of the last one.",
            f"max(codelupe_run_number{_DAEMON})",
            "none",
            "TrainerStalled",
            nothing="none yet",
        ),
        stat(
            "Progress",
            "Optimizer steps done, of those planned.",
            f"max(codelupe_train_step{_DAEMON} / codelupe_train_steps{_DAEMON})",
            "percentunit",
            "TrainerStalled",
            nothing="not training",
            decimals=0,
        ),
        stat(
            "Epoch",
            "Passes over the members, with the fraction of this one.",
            f"max(codelupe_train_epoch{_DAEMON})",
            "none",
            "TrainerStalled",
            nothing="not training",
            decimals=2,
        ),
        stat(
            "Left",
            "Expected time to the last step.",
            f"max(codelupe_train_eta_seconds{_DAEMON})",
            "s",
            "TrainerStalled",
            nothing="not training",
        ),
        stat(
            "Last advance",
            "Time since a step, an evaluation or a new phase. An alert at 20 minutes.",
            f"time() - max(codelupe_train_progress_timestamp_seconds{_DAEMON})",
            "s",
            "TrainerStalled",
            steps=bad_above(300, 900),
            nothing="not training",
        ),
        table(
            "Attention",
            "The kernel that computes attention; sdpa is the slow one that works everywhere.",
            f"codelupe_train_attention_info{_DAEMON}",
            ("implementation",),
            "TrainerStalled",
            width=4,
            height=4,
        ),
        states(
            "Phase",
            "What the child does: import, tokenize, load, train, evaluate, save.",
            f"max by (phase) (codelupe_train_phase{_DAEMON})",
            "{{phase}}",
            "TrainerStalled",
        ),
    ]


def _learning() -> list[Json]:
    return [
        graph(
            "Loss",
            "Cross-entropy in nats per token: of a step, the mean of ten, and on the validation subsample.",
            [
                (f"codelupe_train_loss{_DAEMON}", "step"),
                (f"codelupe_train_smoothed_loss{_DAEMON}", "mean of ten"),
                (f"codelupe_train_eval_loss{_DAEMON}", "validation"),
            ],
            "none",
            "RunsFailing",
            width=12,
        ),
        graph(
            "Learning rate",
            "Warms up, then falls to a tenth of its peak.",
            [(f"codelupe_train_learning_rate{_DAEMON}", "rate")],
            "sci",
            "RunsFailing",
            width=6,
            least=0,
            decimals=2,
        ),
        graph(
            "Gradient norm",
            "Before clipping. A sudden rise comes before a loss that runs away.",
            [(f"codelupe_train_grad_norm{_DAEMON}", "norm")],
            "none",
            "RunsFailing",
            width=6,
            least=0,
        ),
    ]


def _speed() -> list[Json]:
    return [
        graph(
            "Tokens a second",
            "Of the last twenty steps; padding is not counted.",
            [(f"codelupe_train_tokens_per_second{_DAEMON}", "tokens/s")],
            "short",
            "GpuHot",
            least=0,
            width=6,
        ),
        graph(
            "Utilisation of the model's arithmetic (MFU)",
            "Operations that the model needs, over the card's dense bf16 peak. Absent on a CPU: its peak is not known.",
            [(f"codelupe_train_mfu_ratio{_DAEMON}", "MFU")],
            "percentunit",
            "GpuHot",
            least=0,
            width=6,
        ),
        graph(
            "Operations a second",
            "What the model's arithmetic needs at this speed, without what is recomputed.",
            [(f"codelupe_train_flops_per_second{_DAEMON}", "operations")],
            "flops",
            "GpuHot",
            least=0,
            width=6,
        ),
        graph(
            "Wait for data",
            "Seconds of the last step in which the device waited for its batches.",
            [(f"codelupe_train_data_wait_seconds{_DAEMON}", "wait")],
            "s",
            "TrainerStalled",
            least=0,
            width=6,
        ),
        graph(
            "Time to the first step",
            "Seconds from the claim of the last run to its first optimizer step.",
            [(f"codelupe_train_first_step_seconds{_DAEMON}", "first step")],
            "s",
            "TrainerStalled",
            least=0,
            width=6,
        ),
    ]


def _safety() -> list[Json]:
    seconds = f"sum(rate(codelupe_train_checkpoint_seconds_sum{_DAEMON}{_RATE}))"
    checkpoints = f"sum(rate(codelupe_train_checkpoint_seconds_count{_DAEMON}{_RATE}))"
    return [
        stat(
            "Checkpoint",
            "Age of the last checkpoint of any run: what a crash would cost, while one trains.",
            f"time() - max(codelupe_train_checkpoint_timestamp_seconds{_DAEMON})",
            "s",
            "CheckpointsFailing",
            nothing="none yet",
        ),
        stat(
            "Its size",
            "Bytes of the last checkpoint.",
            f"max(codelupe_train_checkpoint_bytes{_DAEMON})",
            "bytes",
            "DiskFilling",
            nothing="none yet",
        ),
        stat(
            "Missed checkpoints",
            "Those that the disk did not take, within the time that is shown.",
            f"sum(increase(codelupe_train_checkpoint_failures_total{_DAEMON}[$__range]))",
            "none",
            "CheckpointsFailing",
            steps=red_above(1),
            decimals=0,
        ),
        stat(
            "Out of memory",
            "Times that the device's memory did not suffice, within the time that is shown.",
            f"sum(increase(codelupe_train_oom_events_total{_DAEMON}[$__range]))",
            "none",
            "RunsFailing",
            steps=bad_above(1),
            decimals=0,
        ),
        stat(
            "Micro-batch",
            "Sequences per forward pass; halved when memory runs out, the step stays as large.",
            f"max(codelupe_train_micro_batch_sequences{_DAEMON})",
            "none",
            "RunsFailing",
            nothing="not training",
        ),
        stat(
            "Tokens",
            "Tokens trained on in this run.",
            f"max(codelupe_train_tokens{_DAEMON})",
            "short",
            "TrainerStalled",
            nothing="not training",
        ),
        graph(
            "Duration of a checkpoint",
            "Mean over those that were written; training stands still meanwhile.",
            [
                (
                    f"{seconds} / ({checkpoints} > 0)",
                    "mean",
                )
            ],
            "s",
            "CheckpointsFailing",
            least=0,
            points=True,
        ),
    ]


def _memory() -> list[Json]:
    return [
        graph(
            "Planned and measured memory",
            "What the planner foresees for the peak of a step, and the most that the child has had: on a GPU its "
            "tensors, without CUDA's own 1.5 GiB, which the plan has in it.",
            [
                (f"codelupe_train_planned_bytes{_DAEMON}", "planned"),
                (f"codelupe_train_peak_bytes{_DAEMON}", "measured"),
            ],
            "bytes",
            "RunsFailing",
            least=0,
        ),
        graph(
            "Recomputed layers",
            "Layers that keep their input alone and are computed again in the backward pass: time for memory.",
            [(f"codelupe_train_checkpointed_layers{_DAEMON}", "layers")],
            "none",
            "RunsFailing",
            least=0,
        ),
    ]
