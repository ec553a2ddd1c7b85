import asyncio
import random

from jaxwiz.llm.limits import BURST_S, RateLimiter
from tests.llm.virtual_clock import VirtualClock


def most_in_a_minute(moments_s: list[float], units: list[float]) -> float:
    return max(
        sum(unit for moment, unit in zip(moments_s, units, strict=True) if start <= moment < start + 60)
        for start in moments_s
    )


def test_one_seconds_worth_goes_at_once_and_then_the_rate():
    limiter = RateLimiter(requests_per_minute=120, tokens_per_minute=None)
    assert [limiter.admit(999, now_s=100.0) for _ in range(6)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]
    assert limiter.admit(999, now_s=1000.0) == 0.0


def test_what_is_larger_than_a_bucket_goes_and_those_after_it_pay():
    limiter = RateLimiter(None, tokens_per_minute=60)
    assert limiter.admit(30, 0.0) == 0.0
    assert limiter.admit(1, 0.0) == 30.0 - BURST_S


def test_what_was_not_used_shortens_the_wait_of_later_ones():
    limiter = RateLimiter(None, tokens_per_minute=60)
    limiter.admit(30, 0.0)
    limiter.settle(admitted=30, used=5)
    assert limiter.admit(1, 0.0) == 5.0 - BURST_S


def test_no_minute_sees_more_than_the_limits_whatever_comes():
    chance = random.Random(1)
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=6000)
    now_s, sent_s, tokens = 0.0, [], []
    for _ in range(600):
        now_s += chance.choice([0.0, 0.0, 0.3, 2.0])
        tokens.append(chance.randrange(10, 190))
        sent_s.append(now_s + limiter.admit(tokens[-1], now_s))
    assert sent_s == sorted(sent_s)
    assert most_in_a_minute(sent_s, [1.0] * 600) <= 60 + BURST_S + 1
    assert most_in_a_minute(sent_s, tokens) <= 6000 * (1 + BURST_S / 60) + 190
    assert len([moment for moment in sent_s if moment < sent_s[-1] / 2]) > 200  # and neither is it much slower


def test_without_limits_nothing_waits():
    limiter = RateLimiter(None, None)
    assert {limiter.admit(10**9, 0.0) for _ in range(1000)} == {0.0}
    limiter.settle(10, 5)


def test_a_pause_is_the_longest_of_those_asked_for_and_ends():
    limiter = RateLimiter(None, None)
    limiter.pause(until_s=50.0)
    limiter.pause(until_s=20.0)
    assert (limiter.pause_left_s(10.0), limiter.pause_left_s(50.0)) == (40.0, 0.0)


def test_the_virtual_clock_wakes_sleepers_in_the_order_of_their_times():
    clock, woken = VirtualClock(), []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.running_s()))

    async def run() -> None:
        await asyncio.gather(sleep(3600), sleep(1), sleep(60))

    asyncio.run(run())
    assert woken == [(1, 1.0), (60, 60.0), (3600, 3600.0)]
