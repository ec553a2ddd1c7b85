import email.utils

import pytest

from jaxwiz.llm.retry import LONGEST_BACKOFF_S, backoff_s, is_passing, retry_after_s

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (408, "", True),
        (409, "", True),
        (429, "rate_limit_exceeded", True),
        (429, "insufficient_quota", False),
        (500, "", True),
        (529, "", True),
        (400, "", False),
        (401, "", False),
        (403, "", False),
        (404, "", False),
    ],
)
def test_which_failures_may_pass(status, code, passes):
    assert is_passing(status, code) is passes


def test_backoff_doubles_up_to_a_limit_and_is_spread_over_half_of_it():
    assert [backoff_s(attempt, 0.0) for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert backoff_s(1, 0.5) == 0.75
    assert backoff_s(10_000, 0.0) == LONGEST_BACKOFF_S / 2


@pytest.mark.parametrize(
    ("headers", "wait_s"),
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
    ],
)
def test_what_a_server_asks_for(headers, wait_s):
    assert retry_after_s(headers, NOW_S) == wait_s
