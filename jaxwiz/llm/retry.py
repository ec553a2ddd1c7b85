"""When and how long to wait before a failed call is tried again: pure functions, without a clock of their own."""

import email.utils
import re
from collections.abc import Mapping

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
RETRIED_STATUSES = frozenset({408, 409, 429})

_NUMBER = re.compile(r"\d+(\.\d+)?")
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")


def is_passing(status: int) -> bool:
    """Says whether an HTTP status means a failure that may pass by itself."""
    return status in RETRIED_STATUSES or status >= 500


def spread_s(wait_s: float, jitter: float) -> float:
    """Returns a wait that a server asked for, up to a tenth and one second longer by `jitter` in [0, 1).

    Never shorter: it was asked for. Longer, because it is asked of all clients alike.
    """
    return wait_s + jitter * min(1.0, wait_s / 10)


def backoff_s(attempt: int, jitter: float) -> float:
    """Returns seconds to wait after failed attempt 0, 1, ...: doubling up to a limit, spread by `jitter` in [0, 1).

    The spread runs from half to the whole of the time, so that clients which failed together don't come back together.
    """
    whole = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 30))
    return whole * (0.5 + jitter / 2)


def wait_s(attempt: int, asked_s: float | None, jitter: float) -> float:
    """Returns seconds to wait after failed attempt 0, 1, ..., of which the server asked for `asked_s`, or for none.

    A request for less than the first backoff does not shorten ours: it is a date that has passed by our clock, or the
    milliseconds until one more call is free for all clients; obeyed, all attempts would be over within one.
    """
    own_s = backoff_s(attempt, jitter)
    if asked_s is None:
        return own_s
    asked_s = spread_s(asked_s, jitter)
    return asked_s if asked_s >= FIRST_BACKOFF_S else max(asked_s, own_s)


def asked_wait_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Returns the wait that a server asks for, in seconds, or None if it asks for none that can be understood.

    Args:
      headers: response headers with lower-case names. `retry-after-ms` goes before `retry-after`, which holds seconds
        or an HTTP date, and that before OpenAI's `x-ratelimit-reset-requests` and `-tokens` ("1s", "6m0s", "12ms"):
        of these, the one whose `x-ratelimit-remaining-` is 0 counts, or the longer, if that doesn't decide.
      now_s: seconds since 1970, to which a date is compared.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return _reset_s(headers)


def parse_duration_s(text: str) -> float | None:
    """Returns the seconds of a duration such as "1s", "6m0s", "1h2m3.5s" or "12ms", or None if it is none."""
    text = text.strip()
    if not text or not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))


def _reset_s(headers: Mapping[str, str]) -> float | None:
    resets_s = {name: parse_duration_s(headers.get(f"x-ratelimit-reset-{name}", "")) for name in ("requests", "tokens")}
    known_s = {name: seconds for name, seconds in resets_s.items() if seconds is not None}
    spent_s = [seconds for name, seconds in known_s.items() if headers.get(f"x-ratelimit-remaining-{name}") == "0"]
    return max(spent_s or known_s.values(), default=None)
