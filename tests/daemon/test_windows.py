"""Windows of the week as a table of times: midnight, weekends, and the two days on which the clock is set."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from daemon.config import DaemonSettings
from daemon.windows import is_inside, next_opening

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = ("mon-fri 22:00-06:00", "sat-sun")


@pytest.mark.parametrize(
    ("windows", "local", "inside"),
    [
        # 2026-11-16 is a Monday
        (NIGHTS, "2026-11-16 21:59", False),
        (NIGHTS, "2026-11-16 22:00", True),
        (NIGHTS, "2026-11-17 00:00", True),
        (NIGHTS, "2026-11-17 05:59", True),
        (NIGHTS, "2026-11-17 06:00", False),
        # Monday's early hours belong to Sunday, which has no night of its own.
        (NIGHTS, "2026-11-16 05:00", False),
        # Friday's night ends on Saturday, which is a window itself.
        (NIGHTS, "2026-11-21 06:30", True),
        (NIGHTS, "2026-11-22 23:59", True),
        (("fri-mon 12:00-13:00",), "2026-11-22 12:30", True),
        (("fri-mon 12:00-13:00",), "2026-11-17 12:30", False),
        (("sun 22:00-02:00",), "2026-11-16 01:00", True),
        (("sun 22:00-02:00",), "2026-11-17 01:00", False),
        (("08:00-24:00",), "2026-11-18 23:59", True),
        (("08:00-24:00",), "2026-11-18 00:00", False),
        (("WED",), "2026-11-18 00:00", True),
        ((), "2026-11-18 00:00", False),
    ],
)
def test_a_local_time_is_inside_or_not(windows, local, inside):
    assert is_inside(windows, datetime.fromisoformat(local).replace(tzinfo=BERLIN)) is inside


@pytest.mark.parametrize(
    ("utc", "inside"),
    [
        # 2026-03-29: 02:00 to 03:00 does not exist in Berlin; the window is an hour shorter
        ("2026-03-29 00:29", False),
        ("2026-03-29 00:30", True),
        ("2026-03-29 01:00", True),
        ("2026-03-29 01:30", False),
        # 2026-10-25: 02:00 to 03:00 comes twice; the window is an hour longer
        ("2026-10-24 23:29", False),
        ("2026-10-24 23:30", True),
        ("2026-10-25 00:30", True),
        ("2026-10-25 01:30", True),
        ("2026-10-25 02:29", True),
        ("2026-10-25 02:30", False),
    ],
)
def test_the_clock_on_the_wall_counts_when_it_is_set(utc, inside):
    local = datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone(BERLIN)

    assert is_inside(["01:30-03:30"], local) is inside


@pytest.mark.parametrize(
    ("windows", "local", "opens"),
    [
        (NIGHTS, "2026-11-16 12:00", "2026-11-16 22:00"),
        (NIGHTS, "2026-11-20 23:00", "2026-11-21 00:00"),
        (("mon 08:00-09:00",), "2026-11-16 08:00", "2026-11-23 08:00"),
        # Across the night in which the clock is set back.
        (("sun 08:00-09:00",), "2026-10-24 08:00", "2026-10-25 08:00"),
    ],
)
def test_it_says_when_the_next_window_opens(windows, local, opens):
    assert next_opening(windows, datetime.fromisoformat(local).replace(tzinfo=BERLIN)) == datetime.fromisoformat(
        opens
    ).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_windows": ["mom-fri 22:00-06:00"]},
            "'mom' in window 'mom-fri 22:00-06:00' is no day: write one of",
        ),
        ({"train_windows": ["25:00-06:00"]}, "'25:00' in window .* is no time of day: write it from 00:00 to 24:00"),
        ({"quiet_hours": ["mon 22:60-23:00"]}, "'22:60' in window .* is no time of day"),
        ({"quiet_hours": ["mon 8:00-9:00"]}, "'8:00' in window .* is no time of day"),
        ({"quiet_hours": ["24:00-06:00"]}, "'24:00-06:00' is an empty window: let it end later"),
        ({"quiet_hours": ["mon 08:00-08:00"]}, "'mon 08:00-08:00' is an empty window"),
        ({"train_windows": ["at night"]}, "'at night' is not a window: write days, hours or both, as in 'mon-fri"),
        ({"train_windows": [""]}, "'' is not a window"),
        ({"train_windows": ["mon 22:00"]}, "'mon 22:00' is not a window"),
        ({"time_zone": "Europe/Nowhere"}, "'Europe/Nowhere' is no time zone here: give an IANA name"),
        ({"time_zone": "../etc/passwd"}, "is no time zone here"),
        ({"time_zone": ""}, "'' is no time zone here"),
        ({"watch_files": 3}, "say how much of what `watch` names: name repositories"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value_and_the_fix(settings, message):
    with pytest.raises(ValidationError, match=message):
        DaemonSettings(**settings)
