"""What of a base's text is held out: whole units, the same ones for the same text, as much as was asked for."""

import pytest

from daemon.held_out import choose_units, write_material
from daemon.job import MEMBERS, VALIDATION, Item

EVEN = {f"unit {number}": 100 for number in range(200)}


@pytest.mark.parametrize(
    ("chars", "share", "most_chars", "num"),
    [
        (EVEN, 0.01, 10**9, 2),
        (EVEN, 0.1, 10**9, 20),
        (EVEN, 0.1, 500, 5),
        (EVEN, 0.0, 10**9, 0),
        (dict(list(EVEN.items())[:20]), 0.01, 10**9, 1),  # at least one
        (dict(list(EVEN.items())[:9]), 0.01, 10**9, 0),  # each is more than a tenth of all
        ({}, 0.01, 10**9, 0),
    ],
)
def test_units_are_held_out_up_to_a_share(chars, share, most_chars, num):
    assert len(choose_units(chars, share, most_chars)) == num


def test_the_order_of_the_text_changes_nothing():
    assert choose_units(dict(reversed(EVEN.items())), 0.05, 10**9) == choose_units(EVEN, 0.05, 10**9)


def test_a_unit_that_is_much_of_the_text_is_learned():
    chosen = choose_units(EVEN | {"large": 10_000}, 0.5, 10**9)

    assert chosen
    assert "large" not in chosen


def test_the_texts_of_chosen_units_are_written_apart(tmp_path):
    common = {"role": "base", "sha256": "0" * 64, "language": "Python", "path": "m.py", "repository": "r"}
    items = [
        Item(ordinal=k, item_id=k, content="x" * 100, unit=f"unit {k // 2}", **common) for k in range(2 * len(EVEN))
    ]

    num = write_material(tmp_path, items, 0.05, sequence_tokens=128)

    expected = choose_units(EVEN, 0.05, 10**9)
    held_out = [Item.model_validate_json(line) for line in (tmp_path / VALIDATION).read_text().splitlines()]
    assert held_out == [item for item in items if item.unit in expected]
    assert num == len(held_out) == 20
    assert len((tmp_path / MEMBERS).read_text().splitlines()) == len(items)
