"""The two frames of a sample, put together from ids: a ChatML turn that continues code, and fill-in-the-middle."""

import numpy as np
from tokenizers import Tokenizer

from daemon.samples.tokens import (
    END_OF_TEXT,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    TURN_END,
    TURN_START,
    Ids,
    encode_texts,
    special_id,
)

# What Qwen2.5's chat template puts first when nobody says otherwise.
SYSTEM = "system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# The code follows without a fence: nothing in it can end the frame, and ``` in it means nothing.
REQUEST = "user\nContinue this {language} code from where it stops.\n\n"
ANSWER = "assistant\n"
_WRITTEN = {"typescript": "TypeScript", "javascript": "JavaScript"}  # others: first letter in upper case
MIN_ROOM = 16


class NoRoom(Exception):
    """A frame leaves no room for code in a sequence; the message names the value to raise."""


class Frames:
    """The frames of one tokenizer.

    Text between two reserved ids is encoded in one piece, as a chat template's renderer would, and the completion
    starts a piece of its own, as it does when a model writes it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        system, newline, answer = encode_texts(tokenizer, [SYSTEM, "\n", ANSWER])
        start, self._end = self._special(TURN_START), self._special(TURN_END)
        self._head = np.concatenate([start, system, self._end, newline, start])
        self._tail = np.concatenate([self._end, newline, start, answer])
        self._prefix, self._suffix = self._special(FIM_PREFIX), self._special(FIM_SUFFIX)
        self._middle, self._end_of_text = self._special(FIM_MIDDLE), self._special(END_OF_TEXT)
        self._num_request: dict[str, int] = {}

    def request(self, language: str) -> str:
        """Return the words before the code that is to be continued."""
        return REQUEST.format(language=_WRITTEN.get(language.lower(), language.capitalize()))

    def num_request(self, language: str) -> int:
        """Return how many tokens those words are."""
        if language not in self._num_request:
            self._num_request[language] = len(encode_texts(self.tokenizer, [self.request(language)])[0])
        return self._num_request[language]

    def room(self, language: str, sequence_tokens: int, *, fim: bool) -> int:
        """Return how many tokens of code fit into a sample.

        Raises:
            NoRoom: fewer than MIN_ROOM.
        """
        framed = 3 if fim else len(self._head) + self.num_request(language) + len(self._tail)
        room = sequence_tokens - framed - 1
        if room < MIN_ROOM:
            raise NoRoom(
                f"sequence_tokens ({sequence_tokens}) leaves {room} tokens for code beside the frame's {framed + 1}: "
                f"set CODELUPE_SEQUENCE_TOKENS to at least {-(-(framed + 1 + MIN_ROOM) // 64) * 64}"
            )
        return room

    def continuation_prompt(self, request: Ids) -> Ids:
        """Return the ids before a continuation; `request` is the encoded `request()` with the code to continue."""
        return np.concatenate([self._head, request, self._tail])

    def fim_prompt(self, before: Ids, after: Ids) -> Ids:
        """Return the ids before the text of a hole: prefix, suffix, middle (the order Qwen2.5-Coder was trained in)."""
        return np.concatenate([self._prefix, before, self._suffix, after, self._middle])

    def continuation_end(self) -> Ids:
        """Return the end of a turn."""
        return self._end

    def fim_end(self) -> Ids:
        """Return the end of a filled hole: the mark the base learned it with, at which editors stop."""
        return self._end_of_text

    def prompt_of(self, language: str, prefix: str, suffix: str | None = None) -> Ids:
        """Return the ids that ask a model to continue `prefix`, or to fill the hole before `suffix`."""
        if suffix is None:
            return self.continuation_prompt(encode_texts(self.tokenizer, [self.request(language) + prefix])[0])
        before, after = encode_texts(self.tokenizer, [prefix, suffix])
        return self.fim_prompt(before, after)

    def _special(self, token: str) -> Ids:
        return np.array([special_id(self.tokenizer, token)], np.uint32)
