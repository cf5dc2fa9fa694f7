"""From a file to its samples: whole, framed, cut where its syntax allows."""

import inspect
import re
import typing
from itertools import pairwise

import numpy as np
import pytest

from daemon.config import SampleSettings
from daemon.samples import Frames, NoRoom, build_all, build_samples, evaluation_samples, load_tokenizer, plain_samples
from daemon.samples.tokens import encode_texts, special_id
from sourcecode.languages import LANGUAGES
from sourcecode.syntax import cut_points, holes
from tests.daemon.code_items import PYTHON, SOURCES, code_tokenizer, make_item, qwen_like_json

SETTINGS = SampleSettings(sequence_tokens=512, max_chars=2000)
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
CHAT = re.compile(
    r"<\|im_start\|>system\nYou are Qwen, created by Alibaba Cloud\. You are a helpful assistant\.<\|im_end\|>\n"
    r"<\|im_start\|>user\nContinue this (\w+) code from where it stops\.\n\n(.*)<\|im_end\|>\n"
    r"<\|im_start\|>assistant\n(.*)<\|im_end\|>",
    re.DOTALL,
)
FIM = re.compile(r"<\|fim_prefix\|>(.*)<\|fim_suffix\|>(.*)<\|fim_middle\|>(.*)<\|endoftext\|>", re.DOTALL)
CHAT_IDS = ["<|im_start|>", END_OF_TURN] * 2 + ["<|im_start|>", END_OF_TURN]
FIM_IDS = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", END_OF_TEXT]
HOSTILE = {
    "no_newline": "x = 1",
    "one_long_line": "x = [" + ", ".join(f"value_{number}" for number in range(900)) + "]\n",
    "one_long_word": "a" * 6000,
    "spaces": " " * 3000 + "x = 1\n" + "\n" * 3000,
    "does_not_parse": "def ((((\n" * 300,
    "nested": "(" * 5000 + "\n" + ")" * 5000,
    "one_docstring": '"""' + "Words of a text that goes on.\n" * 200 + '"""\n',
    "multibyte": "".join(f"名前_{number} = '🐺 狼 {number}'\n" for number in range(300)),
    "carriage_returns": "x = 1\r\ny = 2\r\n" * 200,
    "fences": "```python\nx = 1\n```\n" * 100,
    "reserved": "x = '<|im_end|>\\n<|im_start|>assistant'\n# <|fim_middle|><|endoftext|>\n" * 60,
    "nul": "x = '\x00'\n" * 100,
}


def read(sample, tokenizer=None):
    """Return the sample as text, reserved tokens spelled out."""
    return (tokenizer or code_tokenizer()).decode(sample.input_ids.tolist(), skip_special_tokens=False)


def reserved(sample, tokenizer=None):
    """Return the reserved tokens of a sample, in order."""
    names = {
        number: token.content for number, token in (tokenizer or code_tokenizer()).get_added_tokens_decoder().items()
    }
    return [names[number] for number in sample.input_ids.tolist() if number in names]


def completion(sample, tokenizer=None):
    """Return what is learned, without the end marker."""
    learned = sample.input_ids[sample.prompt_tokens : -1].tolist()
    return (tokenizer or code_tokenizer()).decode(learned, skip_special_tokens=False)


def only(kind, **changes):
    return SETTINGS.model_copy(update={"fim_share": {"fim": 1.0, "continuation": 0.0}[kind], **changes})


def build(text, settings, seed=1, language="python"):
    return build_samples(make_item(text, language), code_tokenizer(), settings, seed=seed)


def test_a_continuation_is_a_chat_turn_that_gives_back_the_file():
    text = SOURCES["python"]

    (sample,) = build(text, only("continuation"))
    language, before, after = CHAT.fullmatch(read(sample)).groups()

    assert language == "Python"
    assert before + after == text
    assert completion(sample) == after
    assert (sample.kind, sample.item_id, sample.unit, sample.language) == ("continuation", 1, "a", "python")


def test_a_hole_is_a_whole_syntax_node_and_gives_back_the_file():
    text = PYTHON[:1500].rsplit("\n", 1)[0] + "\n"

    for seed in range(30):
        (sample,) = build(text, only("fim"), seed)
        before, after, middle = FIM.fullmatch(read(sample)).groups()

        assert before + middle + after == text
        assert (len(before), len(before) + len(middle)) in holes("python", text)
        assert completion(sample) == middle


def test_long_holes_are_chosen_more_often_than_names():
    lengths = [end - start for start, end in holes("python", SOURCES["python"]) if end - start <= 60]

    chosen = [len(completion(build(SOURCES["python"], only("fim"), seed)[0])) for seed in range(60)]

    assert np.mean(chosen) > 1.3 * np.mean(lengths)
    assert len(set(chosen)) > 3


def test_a_hole_lies_within_its_piece():
    samples = build(PYTHON, only("fim", max_chars=600))

    pieces = [FIM.fullmatch(read(sample)).groups() for sample in samples if sample.kind == "fim"]
    assert len(pieces) > 30
    assert all(before + middle + after in PYTHON for before, after, middle in pieces)
    assert all(len(before + middle + after) <= 600 for before, after, middle in pieces)


@pytest.mark.parametrize("kind", ["continuation", "fim"])
@pytest.mark.parametrize("text", [PYTHON, *HOSTILE.values()], ids=["python", *HOSTILE])
def test_every_sample_fits_its_sequence_ends_with_its_marker_and_has_only_the_ids_of_its_frame(kind, text):
    settings = only(kind, sequence_tokens=256)

    samples = build(text, settings)

    markers = {"continuation": CHAT_IDS, "fim": FIM_IDS}
    for sample in samples:
        assert len(sample.input_ids) <= settings.sequence_tokens
        assert sample.input_ids.dtype == np.uint32
        assert reserved(sample) == markers[sample.kind]
        assert sample.completion_bytes == len(completion(sample).encode()) > 0
        assert completion(sample).strip()
        assert 0 < sample.prompt_tokens < len(sample.input_ids) - 1


@pytest.mark.parametrize("text", [PYTHON, *HOSTILE.values()], ids=["python", *HOSTILE])
def test_the_completion_is_never_cut(text):
    settings = SETTINGS.model_copy(update={"sequence_tokens": 256, "fim_share": 0.5})

    for sample in build(text, settings):
        assert completion(sample) in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_completion_starts_after_a_whole_statement_in_every_language(language):
    text = SOURCES[language]

    (sample,) = build(text, only("continuation"), language=language)

    assert len(text) - len(completion(sample)) in cut_points(language, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_holes(language):
    (sample,) = build(SOURCES[language], only("fim"), language=language)

    assert sample.kind == "fim"


def test_the_completion_starts_at_the_statement_nearest_to_its_share():
    text = "".join(f"value_{number:03} = {number:03}\n" for number in range(40))

    starts = {
        share: len(text) - len(completion(build(text, only("continuation", prefix_share=share))[0]))
        for share in (0.1, 0.35, 0.8)
    }

    assert all(abs(start / len(text) - share) <= 0.02 for share, start in starts.items())


def test_indentation_and_the_last_newlines_are_kept():
    text = "class A:\n    def a(self):\n        x = 1\n        return x\n\n    def b(self):\n        return 2\n\n\n"

    (sample,) = build(text, only("continuation"))

    assert completion(sample).startswith("    ")
    assert completion(sample).endswith("return 2\n\n\n")


def test_without_a_parser_lines_are_kept_whole():
    text = "".join(f"line {number} of a text\n" for number in range(400))

    samples = build_samples(make_item(text, "unheard-of"), code_tokenizer(), SETTINGS, seed=1)

    assert len(samples) > 1
    assert all(sample.kind == "continuation" for sample in samples)
    assert all(re.fullmatch(r"(line \d+ of a text\n)+", completion(sample)) for sample in samples)


@pytest.mark.parametrize("prefix_share", [0.01, 0.99])
def test_there_is_something_to_read_and_something_to_write(prefix_share):
    text = "\n\n\nfirst line\nsecond line\n\n\n\n"

    (sample,) = build(text, only("continuation", prefix_share=prefix_share), language="unheard-of")

    assert completion(sample).strip() == "second line"


def test_a_long_file_is_cut_between_statements_and_nothing_is_lost():
    text = inspect.getsource(typing)[:30_000].rsplit("\n", 1)[0] + "\n"

    pieces = ["".join(CHAT.fullmatch(read(sample)).groups()[1:]) for sample in build(text, only("continuation"))]
    starts = np.cumsum([len(piece) for piece in pieces])[:-1].tolist()
    statements = set(cut_points("python", text))

    assert "".join(pieces) == text
    assert len(pieces) > 10
    assert all(text[start - 1] == "\n" for start in starts)
    inside = [start for start in starts if start not in statements]
    assert all(start - max(one for one in statements if one < start) > 1000 for start in inside)
    assert len(inside) < len(starts) / 5
    assert all(len(piece) <= SETTINGS.max_chars for piece in pieces)


def test_pieces_of_a_long_file_nearly_fill_their_sequences():
    samples = build(PYTHON, SETTINGS.model_copy(update={"max_chars": 100_000}))

    assert np.mean([len(sample.input_ids) for sample in samples[:-1]]) > 0.85 * SETTINGS.sequence_tokens


def test_a_piece_with_nothing_to_split_becomes_a_hole():
    samples = build("total = compute_sum(first_value, second_value)\n", only("continuation"))

    assert [sample.kind for sample in samples] == ["fim"]


@pytest.mark.parametrize("text", ["", "\n\n", "   ", "word"])
def test_a_text_with_nothing_to_learn_gives_no_sample(text):
    assert build(text, SETTINGS) == []


def test_the_same_seed_gives_the_same_samples_and_another_seed_others():
    first, again, other = (build(PYTHON, SETTINGS, seed) for seed in (1, 1, 2))

    assert [one.input_ids.tolist() for one in first] == [one.input_ids.tolist() for one in again]
    assert [one.input_ids.tolist() for one in first] != [one.input_ids.tolist() for one in other]


def test_the_share_of_holes_is_the_one_asked_for():
    text = inspect.getsource(typing)[:60_000]

    samples = build(text, SETTINGS.model_copy(update={"fim_share": 0.25, "max_chars": 400}))

    assert 0.15 < np.mean([sample.kind == "fim" for sample in samples]) < 0.35


def test_samples_do_not_depend_on_what_else_is_built():
    items = [make_item(text, language, number) for number, (language, text) in enumerate(SOURCES.items())]
    done = []

    together = list(build_all(items * 20, code_tokenizer(), SETTINGS, seed=3, on_progress=done.append))
    alone = [sample for item in items for sample in build_samples(item, code_tokenizer(), SETTINGS, seed=3)]

    assert [one.input_ids.tolist() for one in together] == [one.input_ids.tolist() for one in alone] * 20
    assert done == [64, 120]


@pytest.mark.parametrize(
    ("text", "seed", "reason"),
    [("x = 1", None, "nowhere to split"), ("x\n" + "word " * 100, 1, "too long for the frame")],
)
def test_a_piece_that_gives_no_sample_is_told_with_its_reason(text, seed, reason):
    item, reasons = make_item(text, "Prose"), []  # no parser: nowhere is a hole

    samples = list(
        build_all([item], code_tokenizer(), only("fim", sequence_tokens=128), seed=seed, on_drop=reasons.append)
    )

    assert samples == []
    assert reasons[0] == reason


def test_evaluation_measures_continuations_alone_whatever_the_shares():
    always = evaluation_samples(make_item(PYTHON), code_tokenizer(), only("fim"))
    never = evaluation_samples(make_item(PYTHON), code_tokenizer(), only("continuation"))

    assert {sample.kind for sample in always} == {"continuation"}
    assert [one.input_ids.tolist() for one in always] == [one.input_ids.tolist() for one in never]


def test_plain_text_is_learned_from_the_start_and_ends_once():
    samples = plain_samples(make_item(PYTHON), code_tokenizer(), SETTINGS)

    text = "".join(read(sample) for sample in samples)
    assert text == PYTHON + END_OF_TEXT
    assert [reserved(sample) for sample in samples[:-1]] == [[]] * (len(samples) - 1)
    assert all(sample.prompt_tokens == 0 and sample.kind == "plain" for sample in samples)
    assert all(len(one.input_ids) == SETTINGS.sequence_tokens for one, _ in pairwise(samples))


def test_a_frame_that_fills_the_sequence_says_what_to_set():
    with pytest.raises(NoRoom, match="CODELUPE_SEQUENCE_TOKENS"):
        build(PYTHON, only("continuation", sequence_tokens=64))


def test_frames_have_the_reserved_ids_of_the_base_model(tmp_path):
    (tmp_path / "tokenizer.json").write_text(qwen_like_json())
    tokenizer = load_tokenizer(str(tmp_path))
    item, long = make_item(HOSTILE["reserved"][:900]), SETTINGS.model_copy(update={"sequence_tokens": 2048})

    chat = build_samples(item, tokenizer, long.model_copy(update={"fim_share": 0.0}), seed=1)[0]
    hole = build_samples(item, tokenizer, long.model_copy(update={"fim_share": 1.0}), seed=1)[0]

    assert [number for number in chat.input_ids.tolist() if number > 151_642] == [151_644, 151_645] * 3
    assert [number for number in hole.input_ids.tolist() if number > 151_642] == [151_659, 151_661, 151_660, 151_643]
    assert CHAT.fullmatch(read(chat, tokenizer))


@pytest.mark.parametrize(("suffix", "last"), [(None, "assistant\n"), ("\nend()\n", "<|fim_middle|>")])
def test_a_prompt_ends_where_the_model_is_to_write(suffix, last):
    ids = Frames(code_tokenizer()).prompt_of("python", "x = 1\n", suffix)

    assert code_tokenizer().decode(ids.tolist(), skip_special_tokens=False).endswith(last)


def test_a_prompt_is_the_one_that_was_trained():
    (sample,) = build(SOURCES["python"], only("continuation"))
    before = CHAT.fullmatch(read(sample)).group(2)

    prompt = Frames(code_tokenizer()).prompt_of("python", before)

    assert prompt.tolist() == sample.input_ids[: sample.prompt_tokens].tolist()
    assert special_id(code_tokenizer(), END_OF_TURN) == sample.input_ids[-1]


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_frame_and_the_room_that_it_leaves_fill_a_sequence_to_the_token(language):
    frames = Frames(code_tokenizer())
    none = np.array([], np.uint32)
    request = encode_texts(frames.tokenizer, [frames.request(language)])[0]

    hole = len(frames.fim_prompt(none, none)) + len(frames.fim_end())
    turn = len(frames.continuation_prompt(request)) + len(frames.continuation_end())

    assert frames.room(language, 512, fim=True) == 512 - hole
    assert frames.room(language, 512, fim=False) == 512 - turn
