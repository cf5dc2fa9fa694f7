import random
import subprocess
import sys

import numpy as np
import pytest

from sourcecode.near_duplicates import NUM_BANDS, make_bands, make_shingles, similarity

WORDS = [f"name_{number}" for number in range(5000)]
CODE = """
def count_words(lines):
    \"\"\"Count the words of some lines.\"\"\"
    counts = {}
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    return counts
"""
GOLDEN = [
    -4164910784730616245,
    -7071463241035623994,
    9131445530811780944,
    -1993932366160333909,
    9015550707846514134,
    395185651467034579,
    6155956946445553422,
    7777838855631834087,
    -1258318455064019953,
    -8944822554672724891,
    752030705956589392,
    -4732569631201059342,
    1138738969429688684,
    1861399058050890913,
]
GOLDEN_UNICODE = [-4164910784730616245, 8450300385110612170]


def make_text(seed, num=400):
    return " ".join(random.Random(seed).choices(WORDS, k=num))


def change(text, share, seed=1):
    """Replace this share of the words, evenly spread, so that each costs five shingles."""
    words = text.split()
    for place in np.linspace(0, len(words) - 1, int(share * len(words))).astype(int):
        words[place] = f"other_{seed}_{place}"
    return " ".join(words)


def count_shared(one, other):
    return sum(a == b for a, b in zip(make_bands(one), make_bands(other), strict=True))


def test_the_bands_of_a_text_never_change():
    # Stored ones would not match any more: count BANDS_VERSION up where this fails on purpose.
    assert make_bands(CODE) == GOLDEN
    assert make_bands("ünïcode größe " * 20 + CODE)[:2] == GOLDEN_UNICODE


def test_the_bands_are_the_same_in_another_process():
    script = "import sys; from sourcecode.near_duplicates import make_bands; print(make_bands(sys.stdin.read()))"
    done = subprocess.run([sys.executable, "-c", script], input=CODE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(make_bands(CODE))


def test_there_are_fourteen_signed_64_bit_bands_that_differ():
    bands = make_bands(CODE)
    assert len(set(bands)) == NUM_BANDS == 14
    assert all(-(2**63) <= band < 2**63 for band in bands)
    assert min(bands) < 0 < max(bands)


@pytest.mark.parametrize("text", ["", "\n", "x", "import os\nimport sys\n", "+-*/ " * 100, "one two three four\n" * 50])
def test_a_text_of_few_different_shingles_has_no_bands(text):
    assert make_bands(text) == []


def test_nine_shingles_are_too_few_and_ten_are_enough():
    assert (len(make_bands(make_text(1, 13))), len(make_bands(make_text(1, 14)))) == (0, 14)


@pytest.mark.parametrize(
    "other",
    [CODE.upper(), CODE.replace(" ", "\t"), CODE.replace(":", " :").replace("(", "( "), CODE.replace("\n", "\r\n")],
    ids=["case", "tabs", "spaces", "line ends"],
)
def test_case_spaces_and_punctuation_make_no_difference(other):
    assert make_bands(other) == make_bands(CODE)
    assert similarity(other, CODE) == 1


def test_similarity_is_the_share_of_common_shingles():
    # 10 words have 6 shingles; the last word changed, 5 are common and 1 + 1 are not.
    text = make_text(1, 10)
    assert similarity(text, f"{text.rpartition(' ')[0]} other") == 5 / 7
    assert similarity(text, make_text(2, 10)) == 0
    assert similarity("", "") == 0


def test_order_counts_and_repetition_does_not():
    text = make_text(1)
    assert similarity(text, " ".join(reversed(text.split()))) == 0
    assert similarity(f"{text} {text} {text}", f"{text} {text}") == 1


@pytest.mark.parametrize("num_changed", [4, 9, 15, 22, 40])
def test_bands_are_shared_as_often_as_the_formula_says(num_changed):
    pairs = [(make_text(seed), change(make_text(seed), num_changed / 400)) for seed in range(100)]
    mean = np.mean([similarity(*pair) for pair in pairs])
    shared = np.array([count_shared(*pair) for pair in pairs])
    assert np.mean(shared) / NUM_BANDS == pytest.approx(mean**8, abs=0.05)
    assert np.mean(shared > 0) == pytest.approx(1 - (1 - mean**8) ** NUM_BANDS, abs=0.15)


def test_tokens_are_told_apart_by_the_order_and_number_of_their_letters():
    texts = ["abc", "acb", "cab", "ab", "abcc", "a_b", "ab0", "ab1", "ä", "ö"]
    assert len({int(make_shingles(f"{text} w x y z")[0]) for text in texts}) == len(texts)


def test_a_long_text_is_worked_on_in_blocks_that_leave_no_trace():
    text = "\n".join(make_text(seed) for seed in range(200))
    assert len(text) > 700_000
    words = text.split()
    assert len(make_shingles(text)) == len(set(zip(*(words[place:] for place in range(5)), strict=False)))
    assert similarity(text, f"{'# ' * 1000}\n{text}") == 1


def test_a_line_longer_than_a_block_and_half_a_surrogate_pair_are_no_trouble():
    assert len(make_bands("x " * 200_000 + make_text(1))) == NUM_BANDS
    assert len(make_bands("\ud800 " + make_text(1))) == NUM_BANDS
