"""Guards: a restart window opens by the clock of its zone, across daylight saving, and says what is wrong with it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certrenewal.domain.window import Window, parse_window
from tests.unit.builders import DAY, NOON

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    """A moment by the clock of Greenwich."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        pytest.param(
            "0 2 * * * for 4h in Europe/Berlin", Window("0 2 * * *", 4 * HOUR, "Europe/Berlin"), id="all three"
        ),
        pytest.param("0 2 * * * for 4h", Window("0 2 * * *", 4 * HOUR), id="UTC where no zone is named"),
        pytest.param("*/5 1-3,22 1 JAN MON-FRI for 90s", Window("*/5 1-3,22 1 JAN MON-FRI", 90 * SECOND), id="lists"),
        pytest.param("  0  2 * * *   for  1h30m   in  UTC ", Window("0  2 * * *", 1.5 * HOUR), id="spaces"),
    ],
)
def test_a_window_is_read(text: str, window: Window) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "0 2 * * * for 4h in Europe/Berlin", id="empty"),
        pytest.param("nightly", "0 2 * * * for 4h in Europe/Berlin", id="a word"),
        pytest.param("0 2 * * *", "0 2 * * * for 4h in Europe/Berlin", id="no duration"),
        pytest.param("0 2 * * * for 4h in", "0 2 * * * for 4h in Europe/Berlin", id="no zone after in"),
        pytest.param("0 2 * * * for 4h at Europe/Berlin", "0 2 * * * for 4h in Europe/Berlin", id="another word"),
        pytest.param("0 25 * * * for 4h", "'0 25 * * *' is no cron expression of five fields", id="hour 25"),
        pytest.param("0 2 * * for 4h", "'0 2 * *' is no cron expression of five fields", id="four fields"),
        pytest.param("0 0 2 * * * for 4h", "'0 0 2 * * *' is no cron expression of five fields", id="with seconds"),
        pytest.param("@daily for 4h", "'@daily' is no cron expression of five fields", id="a short form"),
        pytest.param("0 2 30 2 * for 4h", "that ever matches", id="the 30th of February"),
        pytest.param("0 2 * * * for 1d", "'1d' is no duration: write it like 24h", id="days"),
        pytest.param("0 2 * * * for 0s", "'0s' is out of range", id="no time at all"),
        pytest.param("0 2 * * * for 4h in Berlin", "no time zone 'Berlin': write one such as Europe/Berlin", id="city"),
        pytest.param("0 2 * * * for 4h in Europe", "no time zone 'Europe'", id="a folder of zones"),
        pytest.param("0 2 * * * for 4h in ../../etc/passwd", "no time zone '../../etc/passwd'", id="a path"),
        pytest.param(f"0 2 * * * for 4h in {'x' * 300}", "no longer than 256 characters", id="too long"),
    ],
)
def test_what_cannot_be_read_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_window(text)

    assert words in str(refusal.value)


def test_no_text_takes_long_to_refuse() -> None:
    """Anybody who may annotate a workload can write one: it must not hold up everybody's restarts."""
    started = time.process_time()
    with pytest.raises(ValueError, match="256"):
        parse_window("0" + " " * 250_000 + "x")

    assert time.process_time() - started < 1


@given(
    st.text(max_size=60) | st.from_regex(r"[0-9*/, -]{1,20} for [0-9]{1,3}[smh]( in (UTC|Asia/Tokyo))?", fullmatch=True)
)
def test_a_text_is_refused_in_words_or_has_an_opening(text: str) -> None:
    try:
        window = parse_window(text)
    except ValueError as refusal:
        assert str(refusal)
    else:
        assert window.opening(NOON) >= NOON


# -- opening -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        pytest.param("2026-03-01T01:59:59", "2026-03-01T02:00:00", id="just before"),
        pytest.param("2026-03-01T02:00:00", "2026-03-01T02:00:00", id="at its beginning"),
        pytest.param("2026-03-01T05:59:59", "2026-03-01T05:59:59", id="still open"),
        pytest.param("2026-03-01T06:00:00", "2026-03-02T02:00:00", id="at its end"),
        pytest.param("2026-03-01T12:00:00", "2026-03-02T02:00:00", id="at noon"),
    ],
)
def test_it_is_open_from_its_beginning_until_before_its_end(now: str, opening: str) -> None:
    assert parse_window("0 2 * * * for 4h").opening(utc(now)) == utc(opening)


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        pytest.param("2026-03-01T20:00:00", "2026-03-01T22:00:00", id="before"),
        pytest.param("2026-03-01T23:59:59", "2026-03-01T23:59:59", id="this side of midnight"),
        pytest.param("2026-03-02T01:59:59", "2026-03-02T01:59:59", id="that side of midnight"),
        pytest.param("2026-03-02T02:00:00", "2026-03-02T22:00:00", id="closed"),
    ],
)
def test_it_may_reach_over_midnight(now: str, opening: str) -> None:
    assert parse_window("0 22 * * * for 4h").opening(utc(now)) == utc(opening)


def test_it_opens_on_the_days_of_the_week_that_are_named() -> None:
    assert parse_window("0 2 * * SAT for 4h").opening(utc("2026-03-02T00:00:00")) == utc("2026-03-07T02:00:00")


@pytest.mark.parametrize("now", [NOON, NOON + 59 * timedelta(minutes=1), NOON + timedelta(microseconds=1)], ids=str)
def test_matches_that_overlap_leave_it_open(now: datetime) -> None:
    assert parse_window("0 * * * * for 3h").opening(now) == now
    assert parse_window("0 * * * * for 1h").opening(now) == now


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        pytest.param("2026-01-10T00:59:59", "2026-01-10T01:00:00", id="winter"),
        pytest.param("2026-07-09T23:59:59", "2026-07-10T00:00:00", id="summer"),
    ],
)
def test_the_clock_of_its_zone_counts(now: str, opening: str) -> None:
    assert parse_window("0 2 * * * for 1h in Europe/Berlin").opening(utc(now)) == utc(opening)


@pytest.mark.parametrize(
    ("text", "now", "opening"),
    [
        # On 29 March 2026 the clock in Berlin jumps from 2:00 to 3:00, which is 1:00 in Greenwich.
        pytest.param("30 2 * * * for 1h", "2026-03-28T12:00:00", "2026-03-29T01:00:00", id="a time that is left out"),
        pytest.param("30 2 * * * for 1h", "2026-03-29T01:59:59", "2026-03-29T01:59:59", id="left out, and still open"),
        pytest.param("30 2 * * * for 1h", "2026-03-29T02:00:00", "2026-03-30T00:30:00", id="left out, then closed"),
        pytest.param("0 1 * * * for 4h", "2026-03-29T03:59:59", "2026-03-29T03:59:59", id="as long as on other days"),
        pytest.param("0 1 * * * for 4h", "2026-03-29T04:00:00", "2026-03-29T23:00:00", id="and no longer"),
        # On 25 October 2026 it is set back from 3:00 to 2:00, which is 1:00 in Greenwich.
        pytest.param("30 2 * * * for 30m", "2026-10-24T12:00:00", "2026-10-25T00:30:00", id="the first of two"),
        pytest.param("30 2 * * * for 30m", "2026-10-25T01:30:00", "2026-10-26T01:30:00", id="not the second as well"),
        pytest.param("0 1 * * * for 4h", "2026-10-25T02:59:59", "2026-10-25T02:59:59", id="no shorter"),
        pytest.param("0 1 * * * for 4h", "2026-10-25T03:00:00", "2026-10-26T00:00:00", id="as long as ever"),
        pytest.param("*/30 * * * * for 1m", "2026-10-25T01:10:00", "2026-10-25T01:30:00", id="each half hour, twice"),
    ],
)
def test_daylight_saving_neither_loses_nor_doubles_a_window(text: str, now: str, opening: str) -> None:
    assert parse_window(f"{text} in Europe/Berlin").opening(utc(now)) == utc(opening)


def test_the_answer_is_in_the_zone_of_the_question() -> None:
    window, now = parse_window("0 2 * * * for 4h in Europe/Berlin"), NOON.astimezone(timezone(-5 * HOUR))

    assert window.opening(now).utcoffset() == -5 * HOUR


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see there
SCHEDULES = st.sampled_from(["0 2 * * *", "30 2 * * *", "0 3 * * SUN", "15 1,13 * * *", "*/20 4 * * *", "0 0 1 * *"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])


@given(MOMENTS, SCHEDULES, ZONES, st.integers(1, 72))
@example(utc("2026-03-29T01:00:00"), "30 2 * * *", "Europe/Berlin", 1)
@example(utc("2028-10-28T01:00:00"), "0 2 * * *", "Europe/Berlin", 1)
def test_when_it_opens_it_is_open_and_before_it_was_not(
    now: datetime, schedule: str, zone: str, half_hours: int
) -> None:
    window = Window(schedule, half_hours * HOUR / 2, zone)

    opening = window.opening(now)

    assert now <= opening <= now + 32 * DAY
    assert window.opening(opening) == opening
    if opening > now:
        assert window.opening(opening - SECOND) == opening
        assert opening.second == 0
    # Not compared across zones: a time that comes twice is equal to none of another zone (PEP 495).
    assert window.opening(opening.astimezone(BERLIN)).astimezone(UTC) == opening
