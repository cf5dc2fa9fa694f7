"""Split units (I6)."""

import pytest

from ingest.units import count_units, decide_level, decide_split, make_unit

PATHS = ["a.py", "json/decoder.py", "json/encoder.py", "xml/dom/minidom.py", "xml/sax/saxutils.py"]


def test_it_counts_the_units_of_each_level() -> None:
    assert count_units(PATHS) == {"repository": 1, "top": 3, "directory": 4, "file": 5}
    assert count_units([]) == {"repository": 0, "top": 0, "directory": 0, "file": 0}


@pytest.mark.parametrize(
    ("min_units", "level"),
    [(1, "repository"), (2, "top"), (3, "top"), (4, "directory"), (5, "file"), (40, "file")],
)
def test_it_takes_the_coarsest_level_with_enough_units(min_units: int, level: str) -> None:
    assert decide_level(count_units(PATHS), origin="operator", min_units=min_units) == level


def test_a_crawled_repository_is_one_unit() -> None:
    assert decide_level(count_units(PATHS), origin="crawler", min_units=2) == "repository"


@pytest.mark.parametrize(
    ("level", "unit"),
    [
        ("repository", "github.com/a/b:"),
        ("top", "github.com/a/b:xml"),
        ("directory", "github.com/a/b:xml/dom"),
        ("file", "github.com/a/b:xml/dom/minidom.py"),
    ],
)
def test_it_names_a_unit_by_source_and_place(level: str, unit: str) -> None:
    assert make_unit("github.com/a/b", level, "xml/dom/minidom.py") == unit


def test_it_splits_by_the_name_alone_in_the_shares_asked_for() -> None:
    splits = [decide_split(f"x:{number}", train_share=0.8, validation_share=0.1) for number in range(20_000)]
    assert splits == [decide_split(f"x:{number}", train_share=0.8, validation_share=0.1) for number in range(20_000)]
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / len(splits) - share) < 0.02


def test_a_unit_never_moves_into_training_when_the_shares_grow_smaller() -> None:
    for number in range(500):
        if decide_split(f"x:{number}", train_share=0.8, validation_share=0.1) != "train":
            assert decide_split(f"x:{number}", train_share=0.7, validation_share=0.1) != "train"
