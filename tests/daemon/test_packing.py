"""Packing: every sample once, no sequence too long, hardly a place empty."""

import numpy as np
import pytest

from daemon.samples import density, pack


def random_lengths(seed: int, num: int, capacity: int) -> list[int]:
    """Lengths as source files have them: log-normal around 600 tokens, none above the capacity."""
    drawn = np.random.default_rng(seed).lognormal(np.log(600), 1.0, num)
    return np.clip(drawn, 1, capacity).astype(int).tolist()


CASES = [
    ([], 8),
    ([8], 8),
    ([1] * 20, 8),
    ([8, 8, 8], 8),
    ([5, 5, 5, 3, 3, 3], 8),
    ([7, 1, 6, 2, 5, 3, 4, 4], 8),
    (random_lengths(1, 500, 4096), 4096),
    (random_lengths(2, 500, 700), 700),
]


@pytest.mark.parametrize(("lengths", "capacity"), CASES)
def test_each_sample_is_in_one_sequence_and_no_sequence_is_too_long(lengths, capacity):
    bins = pack(lengths, capacity)

    assert sorted(index for one in bins for index in one) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in one) <= capacity for one in bins)


@pytest.mark.parametrize(("lengths", "capacity"), CASES)
def test_it_packs_the_same_twice(lengths, capacity):
    assert pack(lengths, capacity) == pack(list(lengths), capacity)


@pytest.mark.parametrize(
    ("lengths", "num_bins"),
    [
        ([7, 6, 3, 2, 2], 2),  # the 3 must go to the 7, or the last 2 finds no place
        ([3, 3, 3, 7, 7, 7], 3),  # longest first: else the 3s share a sequence
        ([9, 1, 8, 2, 7, 3, 6, 4, 5, 5], 5),
    ],
)
def test_the_longest_come_first_and_each_takes_the_tightest_fit(lengths, num_bins):
    assert len(pack(lengths, 10)) == num_bins


@pytest.mark.parametrize("seed", range(5))
def test_no_two_sequences_could_be_one(seed):
    lengths = random_lengths(seed, 300, 1000)

    sums = sorted(sum(lengths[index] for index in one) for one in pack(lengths, 1000))

    assert len(sums) < 2 or sums[0] + sums[1] > 1000


def test_samples_as_source_files_give_them_fill_their_sequences():
    lengths = random_lengths(3, 100_000, 4096)

    assert density(lengths, len(pack(lengths, 4096)), 4096) >= 0.98


def test_a_sample_longer_than_a_sequence_is_refused():
    with pytest.raises(ValueError, match="9 tokens long"):
        pack([3, 9], 8)
