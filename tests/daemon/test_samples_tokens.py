"""The tokenizer: whatever a file says, it stays data."""

import random
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer

from daemon.samples import (
    SPECIAL_TOKENS,
    BaseError,
    TokenizerError,
    chars_per_token,
    load_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)
from daemon.samples.tokens import encode_texts, reserved_ids, special_id
from tests.daemon.code_items import PYTHON, SOURCES, code_tokenizer, qwen_like_json

QWEN_IDS = dict(zip(SPECIAL_TOKENS, [*range(151_643, 151_646), *range(151_659, 151_665)], strict=True))


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    (folder / "tokenizer.json").write_text(qwen_like_json())
    return folder


@pytest.fixture(params=["trained", "loaded"], scope="module")
def tokenizer(request, qwen_folder):
    return code_tokenizer() if request.param == "trained" else load_tokenizer(str(qwen_folder))


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, "<tool_call>", "<|vision_3|>"])
@pytest.mark.parametrize("text", ["{}", "x = '{}'\n", "{0}{0}", "a{}b", " {}\n", "<|im_{}end|>"])
def test_no_reserved_id_comes_from_a_text_that_spells_it(tokenizer, token, text):
    spelled = text.format(token)

    ids = encode_texts(tokenizer, [spelled])[0]

    assert not set(ids.tolist()) & reserved_ids(tokenizer)
    assert tokenizer.decode(ids.tolist()) == spelled


def test_no_reserved_id_comes_from_a_token_that_is_spelled_across_two_texts(tokenizer):
    halves = [part for token in SPECIAL_TOKENS for cut in range(1, len(token)) for part in (token[:cut], token[cut:])]

    ids = np.concatenate(encode_texts(tokenizer, halves))

    assert not set(ids.tolist()) & reserved_ids(tokenizer)


def test_a_tokenizer_that_was_not_hardened_is_refused_when_it_recognises_a_reserved_token():
    as_published = Tokenizer.from_str(qwen_like_json())
    as_published.encode_special_tokens = True  # not enough: its FIM tokens are not marked special

    with pytest.raises(TokenizerError, match="load_tokenizer"):
        encode_texts(as_published, ["# <|fim_prefix|>"])


def test_the_reserved_tokens_keep_the_ids_of_the_base_model(qwen_folder):
    loaded = load_tokenizer(str(qwen_folder))

    assert {token: special_id(loaded, token) for token in SPECIAL_TOKENS} == QWEN_IDS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\r\n\r\n\t x",
        "caf\u0065\u0301 = 'A\u030a'",
        "\ufeffx\x00y\x7f",
        "日本語 = '🐺‍❄️'",
        "    indented\n\n\n",
        "x" * 3000,
        " " * 500 + "\t" * 500,
        PYTHON,
        *SOURCES.values(),
    ],
)
def test_every_text_comes_back_byte_by_byte(tokenizer, text):
    assert tokenizer.decode(encode_texts(tokenizer, [text])[0].tolist(), skip_special_tokens=False) == text


def test_random_characters_come_back(tokenizer):
    rng = random.Random(7)
    alphabet = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) != "Cs"]
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(60))) for _ in range(200)]

    assert [tokenizer.decode(ids.tolist()) for ids in encode_texts(tokenizer, texts)] == texts


def test_training_gives_the_same_tokenizer_whatever_the_order_of_the_texts():
    texts = [*SOURCES.values(), PYTHON]

    digests = {tokenizer_digest(train_tokenizer(order, 600)) for order in (texts, texts[::-1], texts)}

    assert len(digests) == 1


def test_another_vocabulary_has_another_digest():
    assert tokenizer_digest(train_tokenizer([PYTHON], 600)) != tokenizer_digest(train_tokenizer([PYTHON], 601))


def test_a_saved_tokenizer_is_the_same_when_it_is_loaded(tmp_path):
    code_tokenizer().save(str(tmp_path / "tokenizer.json"))

    loaded = load_tokenizer(str(tmp_path))

    assert tokenizer_digest(loaded) == tokenizer_digest(code_tokenizer())
    assert loaded.encode(PYTHON).ids == code_tokenizer().encode(PYTHON).ids


def test_training_fills_the_vocabulary_and_knows_every_byte():
    tokenizer = train_tokenizer([PYTHON], 700)

    assert tokenizer.get_vocab_size() == 700
    assert all(len(tokenizer.encode(chr(code)).ids) >= 1 for code in range(1, 256))


def test_a_folder_without_a_tokenizer_is_named_with_what_to_set(tmp_path):
    with pytest.raises(BaseError, match=f"(?s){tmp_path}.*CODELUPE_BASE_MODEL"):
        load_tokenizer(str(tmp_path))


def test_a_model_that_is_nowhere_is_named_with_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(BaseError, match=r"(?s)nobody/nothing.*CODELUPE_BASE_MODEL"):
        load_tokenizer("nobody/nothing", local_only=True)


def test_a_tokenizer_without_fim_tokens_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(qwen_like_json().replace("<|fim_middle|>", "<|other|>"))

    with pytest.raises(TokenizerError, match="fim_middle"):
        load_tokenizer(str(tmp_path))


def test_characters_per_token_are_measured():
    assert 2 < chars_per_token(code_tokenizer(), [PYTHON]) < 5
    assert chars_per_token(code_tokenizer(), []) is None
