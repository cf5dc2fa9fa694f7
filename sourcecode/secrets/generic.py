"""Values in no vendor's format, judged by the name they are given to and by their looks."""

import re2

from sourcecode.secrets.placeholders import is_made_up, is_mixed, is_name, measure_entropy

_PASSWORD_NAME = re2.compile(r"passw|pwd|passphrase")
_KEY_VALUE = re2.compile(rb"[\w+/=.~-]{16,256}")
_PASSWORD_VALUE = re2.compile(rb"[\x21-\x7e]{8,64}")
# A path, a call, a template, an address, an expression: none is a password.
_CODE = re2.compile(rb"[\\/(){}\[\]<>,;`\"'|]|\$[A-Za-z{]|%[sd(]|::|->|^[.#@:]")
_MIN_PASSWORD_ENTROPY = 2.7
_MIN_KEY_ENTROPY = 3.5
_MIN_HEX_ENTROPY = 3.0
_HEX = re2.compile(r"[0-9a-fA-F-]+")


def judge_value(name: str, value: bytes) -> str | None:
    """Return "password", "generic-key" or None for a string that is assigned to a name in lower case."""
    if _PASSWORD_NAME.search(name):
        return "password" if "," not in name and _is_password(value) else None
    return "generic-key" if _is_key(value) else None


def _is_password(value: bytes) -> bool:
    if not _PASSWORD_VALUE.fullmatch(value) or _CODE.search(value):
        return False
    text = value.decode("ascii")
    return (
        is_mixed(text) and not is_made_up(text) and not is_name(text) and measure_entropy(text) >= _MIN_PASSWORD_ENTROPY
    )


def _is_key(value: bytes) -> bool:
    if not _KEY_VALUE.fullmatch(value):
        return False
    text = value.decode("ascii", "replace")
    if not is_mixed(text) or is_name(text) or is_made_up(text):
        return False
    return measure_entropy(text) >= (_MIN_HEX_ENTROPY if _HEX.fullmatch(text) else _MIN_KEY_ENTROPY)
