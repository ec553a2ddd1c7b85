import email.utils

import pytest

from jaxwiz.llm.retry import LONGEST_BACKOFF_S, asked_wait_s, backoff_s, is_passing, parse_duration_s, spread_s, wait_s

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        (408, True),
        (409, True),
        (429, True),
        (500, True),
        (529, True),
        (400, False),
        (401, False),
        (403, False),
        (404, False),
    ],
)
def test_which_failures_may_pass(status, passes):
    assert is_passing(status) is passes


def test_what_a_server_asks_for_is_never_cut_short_and_a_little_spread():
    assert spread_s(100.0, 0.0) == 100.0
    assert spread_s(100.0, 0.5) == 100.5
    assert spread_s(1.0, 0.5) == 1.05


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("", None),
        ("6", None),
        ("s", None),
        ("1s or so", None),
    ],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


def test_backoff_doubles_up_to_a_limit_and_is_spread_over_half_of_it():
    assert [backoff_s(attempt, 0.0) for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert backoff_s(1, 0.5) == 0.75
    assert backoff_s(10_000, 0.0) == LONGEST_BACKOFF_S / 2


@pytest.mark.parametrize(
    ("attempt", "asked_s", "seconds"),
    [
        (0, None, 0.25),
        (3, None, 2.0),
        (3, 100.0, 100.0),
        (3, 0.5, 0.5),  # less than our own, but a request
        (3, 0.0, 2.0),  # a date that has passed, by our clock
        (3, 0.006, 2.0),
        (0, 0.4, 0.4),
    ],
)
def test_a_server_is_obeyed_but_for_waits_that_would_end_all_attempts_at_once(attempt, asked_s, seconds):
    assert wait_s(attempt, asked_s, 0.0) == seconds


@pytest.mark.parametrize(
    ("headers", "asked_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after-ms": "12"}, 0.012),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": email.utils.formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW_S - 90, usegmt=True)}, 0.0),
        ({"retry-after": "in a while"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-remaining-tokens": "900",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            0.012,
        ),
        ({"retry-after": "2", "x-ratelimit-reset-requests": "6m0s"}, 2.0),
    ],
)
def test_what_a_server_asks_for(headers, asked_s):
    assert asked_wait_s(headers, NOW_S) == asked_s
