"""How long GitHub asks us to wait, in seconds of no clock: theirs may be wrong, and ours too. Pure."""

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

# What GitHub asks for where it names no time.
MIN_PAUSE_S: Final = 60.0
# Its longest window is an hour; who asks for more than a day has a broken clock or means to stop us.
MAX_PAUSE_S: Final = 86_400.0
_SECONDS: Final = re.compile(r"\s*(-?)0*(\d{1,9})(?:\.\d*)?\s*")
_MANY_SECONDS: Final = re.compile(r"\s*-?\d{10,}(?:\.\d*)?\s*")


def server_time(headers: Mapping[str, str], utc: dt.datetime) -> float:
    """Return the server's time in seconds since 1970, ours if it does not say."""
    return _read_date(headers.get("date", ""), utc.timestamp())


def read_retry_after(headers: Mapping[str, str], utc: dt.datetime) -> tuple[float | None, str]:
    """Return the seconds of a Retry-After, and what is wrong with it; None where it names no time to come.

    It says seconds, or a date of the server's clock. A pause of more than a day is cut to one.
    """
    said = headers.get("retry-after")
    if said is None:
        return None, ""
    seconds = _read_seconds(said, server_time(headers, utc))
    if seconds is None or seconds <= 0:
        return None, f"Retry-After {said[:40]!r} names no time to come"
    if seconds > MAX_PAUSE_S:
        return MAX_PAUSE_S, f"Retry-After {said[:40]!r} is more than a day: a day is waited"
    return seconds, ""


def _read_seconds(said: str, server_now: float) -> float | None:
    if _MANY_SECONDS.fullmatch(said):
        return None if "-" in said else float("inf")
    if match := _SECONDS.fullmatch(said):
        return int(match[2]) * (-1.0 if match[1] else 1.0)
    at = _read_date(said, server_now)
    return at - server_now if at != server_now else None


def _read_date(text: str, otherwise: float) -> float:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return otherwise
