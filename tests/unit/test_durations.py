"""Guards: durations are read as Go reads them, to the microsecond, or refused with what would be right."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certrenewal.domain.durations import format_duration, parse_duration

DURATIONS = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=365 * 100))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        pytest.param("24h", timedelta(hours=24), id="hours"),
        pytest.param("90m", timedelta(minutes=90), id="minutes"),
        pytest.param("45s", timedelta(seconds=45), id="seconds"),
        pytest.param("1h30m5s", timedelta(hours=1, minutes=30, seconds=5), id="several units"),
        pytest.param("1.5h", timedelta(minutes=90), id="fraction"),
        pytest.param(".5m", timedelta(seconds=30), id="fraction without a whole part"),
        pytest.param("2.h", timedelta(hours=2), id="point without a fraction"),
        pytest.param("30m1h", timedelta(minutes=90), id="units in any order, as in Go"),
        pytest.param("250ms", timedelta(milliseconds=250), id="milliseconds"),
        pytest.param("7us", timedelta(microseconds=7), id="us"),
        pytest.param("7µs", timedelta(microseconds=7), id="micro sign"),
        pytest.param("7μs", timedelta(microseconds=7), id="Greek mu"),
        pytest.param("3000ns", timedelta(microseconds=3), id="nanoseconds"),
        pytest.param("0h5m", timedelta(minutes=5), id="a zero part"),
    ],
)
def test_a_go_duration_is_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "24", "1d", "1w", "24 h", " 24h", "24h ", "24h\n", "h", "1h,5m", "-1h", "1e3h", "1H", "0x1h", "٢٤h", "1..5h"],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 24h") as refusal:
        parse_duration(text)

    assert repr(text) in str(refusal.value)


def test_an_endless_duration_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="at most 64 characters") as refusal:
        parse_duration("1" * 1_000_000)

    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("text", ["0s", "0h0m", "1ns", "300ns", "3000000h", f"{'9' * 63}h"])
def test_a_duration_is_more_than_nothing_and_less_than_go_can_count(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(hours=24), "24h"),
        (timedelta(days=365), "8760h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(hours=1, seconds=1), "1h1s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(milliseconds=1500), "1.500000s"),
        (timedelta(minutes=1, microseconds=1), "1m0.000001s"),
        (timedelta(0), "0s"),
    ],
    ids=str,
)
def test_a_duration_is_written_in_the_largest_whole_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(DURATIONS)
@example(timedelta(microseconds=1))
@example(timedelta(hours=1, microseconds=1))
def test_what_was_written_is_read_back_to_the_microsecond(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.hmsnuµ -+e", max_size=12))
def test_any_text_is_a_positive_duration_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError as refusal:
        assert repr(text) in str(refusal)
    else:
        assert duration > timedelta(0)
