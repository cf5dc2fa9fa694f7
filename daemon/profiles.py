"""Profiles: defaults for one kind of machine, by section. Configuration and environment go over them."""

from typing import Any

# A 2-core machine and the standard library of Python: the figures of docs/measurements.md.
_TINY: dict[str, dict[str, Any]] = {
    "ingest": {"train_share": 0.8, "validation_share": 0.1},
    "daemon": {
        "line": "tiny",
        "base_model": "local:tiny",
        "check_interval_s": 5,
        "threshold_rows": 100,
        "min_quality": 0,
        "sequence_tokens": 512,
        "max_chars": 2000,
        "fim_share": 0.25,
        "base_max_chars": 1_500_000,
        "max_run_chars": 1_100_000,
        "max_test_chars": 400_000,
        "eval_pieces": 4,
        "lora_rank": 64,
        "lora_alpha": 128,
        "learning_rate": 1.5e-3,
        "pretrain_learning_rate": 1.2e-3,
        "micro_batch": 2,
        "accumulation": 1,
        "checkpointed_layers": 0,
        "compute_dtype": "float32",
        "checkpoint_interval_s": 20,
        "line_lease_s": 15,
        "stop_grace_s": 8,
        "back_off_s": 10,
    },
}

_LARGE: dict[str, Any] = {
    "base_model": "Qwen/Qwen2.5-Coder-14B-Instruct",
    "learning_rate": 5e-5,
    "lora_rank": 256,
    "lora_alpha": 512,
}
_RANK_64: dict[str, Any] = {"learning_rate": 2e-4, "lora_rank": 64, "lora_alpha": 128}

PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": _TINY,
    "small": {
        "daemon": {
            **_RANK_64,
            "base_model": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
            "sequence_tokens": 2048,
            "micro_batch": 2,
        }
    },
    "gpu-16gb": {
        "daemon": {**_RANK_64, "base_model": "Qwen/Qwen2.5-Coder-3B-Instruct", "micro_batch": 2, "accumulation": 8}
    },
    "gpu-24gb": {
        "daemon": {**_RANK_64, "base_model": "Qwen/Qwen2.5-Coder-7B-Instruct", "micro_batch": 2, "accumulation": 8}
    },
    "gpu-32gb": {"daemon": {**_LARGE, "micro_batch": 4, "accumulation": 4, "memory_gib": 27}},
    "gpu-80gb": {"daemon": {**_LARGE, "micro_batch": 4, "accumulation": 4}},
    "gpu-141gb": {"daemon": {**_LARGE, "micro_batch": 4, "accumulation": 4}},
}
