"""Rate limits: how long a request must wait so that requests and tokens a minute stay within what was agreed.

Each limit is a bucket that fills at its rate and holds one second's worth. Whoever wants something takes it at once,
even if that leaves a debt, and is told after how many seconds the debt is paid: no queue, no lock, first come first
served, and a pure function of the times at which it was asked. Nothing sleeps here.
"""

BURST_S = 1.0


class Bucket:
    """One limit of so many units a minute."""

    def __init__(self, per_minute: float) -> None:
        self._seconds_per_unit = 60.0 / per_minute
        self._paid_at_s = float("-inf")  # when all that was taken will have flowed in

    def free_at_s(self) -> float:
        """Returns from when on units may be taken."""
        return self._paid_at_s - BURST_S

    def take(self, units: float, at_s: float) -> None:
        """Takes `units` at a time that is not before `free_at_s`."""
        self._paid_at_s = max(self._paid_at_s, at_s) + units * self._seconds_per_unit

    def give_back(self, units: float) -> None:
        """Returns units that were taken and not used (or, negative, takes what was used beyond), for later takers."""
        self._paid_at_s -= units * self._seconds_per_unit


class RateLimiter:
    """Requests and tokens a minute, and pauses that a server asked for; all times by one clock that never goes back."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._paused_until_s = float("-inf")

    def admit(self, tokens: int, now_s: float) -> float:
        """Returns how many seconds a request must wait that may take up to `tokens`; it counts from now on."""
        taken = [(bucket, units) for bucket, units in ((self._requests, 1), (self._tokens, tokens)) if bucket]
        at_s = max([now_s, *(bucket.free_at_s() for bucket, _ in taken)])
        for bucket, units in taken:  # all at the time when it is sent, or one bucket fills while another is waited for
            bucket.take(units, at_s)
        return at_s - now_s

    def settle(self, admitted: int, used: int) -> None:
        """Corrects the tokens of an admitted request to those that it took."""
        if self._tokens:
            self._tokens.give_back(admitted - used)

    def pause(self, until_s: float) -> None:
        """Holds all requests back until then: the server said to one of them that it had enough."""
        self._paused_until_s = max(self._paused_until_s, until_s)

    def pause_left_s(self, now_s: float) -> float:
        """Returns how many seconds of a pause are left."""
        return max(0.0, self._paused_until_s - now_s)
