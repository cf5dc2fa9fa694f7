"""Which card is leased: the one that the training child will see first."""

from pathlib import Path

import pytest

from daemon.device import DeviceError, detect_device

CARDS = {"0": "GPU-0, NVIDIA H200, 143771", "1": "GPU-1, NVIDIA L4, 23034", "GPU-1": "GPU-1, NVIDIA L4, 23034"}


@pytest.fixture(autouse=True)
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put two cards into this machine; one that is not there is answered as the real program does."""
    answers = "".join(f"*--id={name}) echo {card};;\n" for name, card in CARDS.items())
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in\n{answers}*--id=*) echo No devices were found; exit 6;;\n'
        f"*) echo {CARDS['0']}; echo {CARDS['1']};;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("visible", "card"),
    [(None, "GPU-0"), ("", "GPU-0"), ("0,1", "GPU-0"), ("1", "GPU-1"), ("1, 0", "GPU-1"), ("GPU-1", "GPU-1")],
)
def test_the_first_card_in_sight_is_the_one(monkeypatch: pytest.MonkeyPatch, visible: str | None, card: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = detect_device("gpu-24gb")
    assert (found.kind, found.card) == ("cuda", card)


def test_a_card_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES=7"):
        detect_device("gpu-24gb")
