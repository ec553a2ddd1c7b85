"""When and how long to wait before a failed call is tried again: pure functions, without a clock of their own."""

import email.utils
import re
from collections.abc import Mapping

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
RETRIED_STATUSES = frozenset({408, 409, 429})

_NUMBER = re.compile(r"\d+(\.\d+)?")


def is_passing(status: int, code: str) -> bool:
    """Says whether a failure may pass by itself.

    Args:
      status: the HTTP status.
      code: the error code or type in the body; an exhausted quota comes as a 429 that never passes.
    """
    return code != "insufficient_quota" and (status in RETRIED_STATUSES or status >= 500)


def backoff_s(attempt: int, jitter: float) -> float:
    """Returns seconds to wait after failed attempt 0, 1, ...: doubling up to a limit, spread by `jitter` in [0, 1).

    The spread runs from half to the whole of the time, so that clients which failed together don't come back together.
    """
    whole = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 30))
    return whole * (0.5 + jitter / 2)


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Returns the wait that a server asks for, in seconds, or None if it asks for none that can be understood.

    Args:
      headers: response headers with lower-case names; `retry-after-ms` goes before `retry-after`, which holds seconds
        or an HTTP date.
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
    except ValueError:
        return None
