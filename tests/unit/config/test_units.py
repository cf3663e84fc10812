from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.problems import Invalid
from edgeproxy.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("3s", 3.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1m0.25s", 60.25),
        ("1d2h3m4s5ms", 93784.005),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512B", 512),
        ("64KiB", 65536),
        ("10MiB", 10 << 20),
        ("10 MiB", 10 << 20),
        ("1.5MiB", 1572864),
        ("1GiB", 1 << 30),
        ("10MB", 10_000_000),
        ("3kB", 3000),
        ("3KB", 3000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("3", "'3s' or '3ms'"),
        ("3sec", "write '3s'"),
        ("3 s", "write '3s'"),
        ("3S", "write '3s'"),
        ("10 minutes", "write '10m'"),
        ("8:30", "'8m30s' or '8h30m'"),
        ("-3s", "not negative"),
        ("", "500ms"),
        ("3x", "500ms"),
        ("inf", "500ms"),
        ("30m1h", "larger units come first"),
        ("1s1s", "each once"),
        ("4000d", "the units are"),
        ("٣s", "500ms"),  # an Arabic-Indic digit is a digit to Python's \d
    ],
)
def test_a_wrong_duration_says_what_is_right(text: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10M", "'10MiB' (1024-based) or '10MB' (1000-based)"),
        ("10k", "'10KiB'"),
        ("10mib", "write '10MiB'"),
        ("10MiBs", "did you mean 'MiB'?"),
        ("-1", "not negative"),
        ("0.3B", "smaller unit"),
        ("9999999TiB", "sizes are"),
        ("", "512B"),
        ("1e6", "512B"),
    ],
)
def test_a_wrong_size_says_what_is_right(text: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_size(text)
    assert hint in caught.value.hint


@given(st.integers(min_value=0, max_value=10 * 365 * 86400 * 1000))
def test_every_millisecond_survives_writing_and_reading(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=1 << 49))
def test_every_size_survives_writing_and_reading(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (90, "1m30s"), (86400, "1d"), (3.25, "3s250ms"), (0.0005, "0.5ms")]
)
def test_durations_are_written_shortly(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1023, "1023B"), (10 << 20, "10MiB"), (1536, "1536B")])
def test_sizes_are_written_shortly(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.text(max_size=40))
def test_nothing_but_invalid_is_raised(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            value = parse(text)
        except Invalid:
            continue
        assert value >= 0
