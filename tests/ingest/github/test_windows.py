"""Windows: what they ask, and that the parts of a split tile it."""

import datetime as dt
import random

import pytest

from ingest.github.windows import AXES, Range, Window, split, whole

TODAY = dt.date(2026, 11, 1)
DAY = dt.date(2020, 5, 1).toordinal()


def box(created: Range | None = None, stars: Range | None = None, pushed: Range | None = None) -> Window:
    return Window("python", 3, created or Range(), stars or Range(10), pushed or Range())


@pytest.mark.parametrize(
    ("window", "query"),
    [
        (
            whole("typescript", min_stars=10, min_forks=3),
            "language:TypeScript is:public archived:false forks:>=3 stars:>=10",
        ),
        (
            whole("go", min_stars=10, min_forks=0, term='"http-client"'),
            '"http-client" language:Go is:public archived:false stars:>=10',
        ),
        (
            whole("dart", min_stars=1, min_forks=2, since=dt.date(2026, 1, 2)),
            "language:Dart is:public archived:false forks:>=2 stars:>=1 pushed:>=2026-01-02",
        ),
        (
            box(Range(DAY, DAY), Range(10, 12), Range(None, DAY + 1)),
            (
                "language:Python is:public archived:false forks:>=3 stars:10..12 created:2020-05-01..2020-05-01 "
                "pushed:<=2020-05-02"
            ),
        ),
    ],
)
def test_a_window_is_a_query(window: Window, query: str) -> None:
    assert window.query == query
    assert len(query) <= 256
    assert Window.from_json(window.to_json()) == window


@pytest.mark.parametrize(
    ("window", "axis"),
    [
        (box(), "created"),
        (box(Range(DAY, DAY + 1)), "created"),
        (box(Range(DAY, DAY)), "stars"),
        (box(Range(DAY, DAY), Range(10, 11)), "stars"),
        (box(Range(DAY, DAY), Range(10, 10)), "pushed"),
        (box(Range(DAY, DAY), Range(10, 10), Range(DAY, None)), "pushed"),
    ],
)
def test_it_is_split_by_creation_then_by_stars_then_by_pushes(window: Window, axis: str) -> None:
    parts = split(window, 1500, TODAY)
    assert len(parts) >= 2
    for other in AXES:
        same = {getattr(part, other) for part in parts}
        assert (same == {getattr(window, other)}) is (other != axis)


def test_one_day_of_one_star_count_and_one_push_is_not_split() -> None:
    assert split(box(Range(DAY, DAY), Range(10, 10), Range(DAY, DAY)), 5000, TODAY) == []


def test_a_split_makes_about_as_many_parts_as_are_needed() -> None:
    assert [len(split(box(), total, TODAY)) for total in (1001, 4000, 40_000, 10_000_000)] == [2, 5, 50, 64]


def holds(window: Window, point: tuple[int, int, int]) -> bool:
    spans = [getattr(window, axis) for axis in AXES]
    return all(
        (span.low is None or value >= span.low) and (span.high is None or value <= span.high)
        for span, value in zip(spans, point, strict=True)
    )


@pytest.mark.parametrize("seed", range(10))
def test_the_parts_of_any_split_tile_the_window(seed: int) -> None:
    """Random points, edges and corners among them, lie in exactly one leaf of a random tree of splits."""
    rng = random.Random(seed)
    root = box(stars=Range(rng.choice([0, 1, 10])))
    leaves, edges = [root], [(0, 0, 0)]
    for _ in range(rng.randrange(1, 25)):
        window = leaves.pop(rng.randrange(len(leaves)))
        parts = split(window, rng.randrange(1001, 60_000), TODAY)
        leaves += parts or [window]
    for leaf in leaves:
        spans = [getattr(leaf, axis) for axis in AXES]
        ends = [[end for end in (span.low, span.high) if end is not None] or [DAY] for span in spans]
        edges.append(tuple(rng.choice(end) + rng.choice([-1, 0, 1]) for end in ends))
    future = TODAY.toordinal() + 400
    randoms = [
        (rng.randrange(730_000, future), rng.randrange(0, 300_000), rng.randrange(730_000, future)) for _ in "x" * 50
    ]
    for point in edges + randoms:
        assert sum(holds(leaf, point) for leaf in leaves) == holds(root, point)
