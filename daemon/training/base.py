"""The frozen base from its files: found, checked, loaded once as the settings store it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging

from daemon.config import TrainingSettings
from daemon.samples import describe_missing, words_of
from daemon.training.attention import SDPA, Attention
from daemon.training.base_files import find_base_file
from daemon.training.child import Failed
from daemon.training.failures import classify
from daemon.training.fp8 import read_fp8, store_in_fp8
from daemon.training.model import Model, compute_dtype, keep_trainable
from daemon.training.quantised import MANIFEST, Note, find_quantised, ignore, name_key, save_quantised, set_aside
from daemon.training.ranks import rank
from daemon.training.rows import Row

COMPARED = "fp8_compared"


def load_base(job: Model, attention: Attention = SDPA, note: Note = ignore, check_on: Sequence[Row] = ()) -> Any:
    """Load the base model, frozen and quantised as the settings say; its config's `_commit_hash` is the hub's commit.

    With a folder for them (`base_cache`), the quantised form is kept there and loaded the next time: the same bits. FP8
    is compared with the unquantised weights, on the rows that are given, when it is made; without rows it is not kept.

    Raises:
        Failed: base_missing, naming the model, where it was looked for, and what to set; exception, where FP8 changes
            its loss.
    """
    folder = find_base_file(job, "config.json").parent
    commit = None if Path(job.base).expanduser().is_dir() else folder.name  # that of the hub's snapshot
    cache = None if job.settings.quantisation == "none" else job.base_cache
    key = name_key(job, folder, commit)
    model = None if cache is None else _load_kept(job, cache, key, attention, note)
    if model is None:
        model, compared = _load_afresh(job, folder, commit, attention), ""
        if job.settings.quantisation == "fp8" and (compared := store_in_fp8(model, job, check_on, flat=attention.flat)):
            note(COMPARED, compared)
        loaded_key = name_key(job, folder, commit)
        # A folder that was written to meanwhile: who knows which files these are. The hub's come as they are loaded.
        is_certain = (loaded_key == key or commit is not None) and (job.settings.quantisation == "nf4" or compared)
        if cache is not None and rank() == 0 and is_certain:
            described = {"base": job.base, "revision": commit, "quantisation": job.settings.quantisation}
            described |= {COMPARED: compared} if compared else {}
            save_quantised(model, cache, loaded_key, described, note)
    model.config._commit_hash = commit  # noqa: SLF001 - for the report; not every release sets it
    model.requires_grad_(False)
    keep_trainable(model)
    return model


def _load_kept(job: Model, cache: Path, key: str, attention: Attention, note: Note) -> Any:
    """Load the quantised form of that name; None where there is none, or none that is whole."""
    kept = find_quantised(cache, key, note)
    if kept is None:
        return None
    try:
        if job.settings.quantisation == "fp8":
            model, loaded = read_fp8(kept, job, attention.implementation)
            note(COMPARED, f"{json.loads((kept / MANIFEST).read_bytes())[COMPARED]}, when it was made")
        else:
            model, loaded = _read(job, str(kept), attention)
    except Exception as error:  # as with the base itself: anything
        if classify(error).reason != "exception":
            raise
        set_aside(kept, words_of(error), note)
        return None
    if loaded["missing_keys"]:
        set_aside(kept, f"it lacks {len(loaded['missing_keys'])} tensors", note)
        return None
    return model


def _load_afresh(job: Model, folder: Path, commit: str | None, attention: Attention) -> Any:
    """Load the base from its own files, quantising them as the settings say."""
    revision = commit or job.base_revision  # all files of one commit, though the hub's may move on
    try:
        model, loaded = _read(
            job, job.base, attention, revision=revision, quantization_config=_quantisation(job.settings)
        )
    except Exception as error:  # what a damaged file makes the library raise can be anything
        if classify(error).reason != "exception":
            raise
        raise _refuse(job, find_damage(folder) or words_of(error)) from error
    if loaded["missing_keys"]:  # transformers would go on with random numbers in their place
        names = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise _refuse(job, f"the weights in {folder} lack {len(loaded['missing_keys'])} tensors: {names}, …")
    if not (hasattr(model, "lm_head") and isinstance(getattr(model, model.base_model_prefix, None), nn.Module)):
        raise _refuse(
            job, f"{folder / 'config.json'} is of a {type(model).__name__}, not of the Qwen2 family, nor GPT-2"
        )
    return model


def _read(job: Model, place: str, attention: Attention, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model in a folder or of a name, mapped from its files onto the device, and what was missing there."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # for a terminal, and this is a log
    found: Any = AutoModelForCausalLM.from_pretrained(
        place,
        dtype=compute_dtype(job.settings),
        # FP8 is made block by block: the device may not hold the whole base.
        device_map="cpu" if job.device == "cpu" or job.settings.quantisation == "fp8" else {"": rank()},
        attn_implementation=attention.implementation,
        use_safetensors=True,
        trust_remote_code=False,
        use_cache=False,
        output_loading_info=True,
        **options,
    )
    model, loaded = found
    return model, loaded


def find_damage(folder: Path) -> str | None:
    """Return which file of weights in a folder cannot be read, and why; None where all can."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{file} is damaged: {words_of(error)}"
    return None


def _refuse(job: Model, detail: str) -> Failed:
    return Failed("base_missing", describe_missing(job.base, job.base_revision, detail))


def _quantisation(settings: TrainingSettings) -> BitsAndBytesConfig | None:
    if settings.quantisation != "nf4":
        return None
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(settings),
    )
