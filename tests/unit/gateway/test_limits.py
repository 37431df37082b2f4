"""Rate limits, with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_gateway import limits
from wasession_gateway.limits import Limiter


def test_a_burst_and_then_the_rate() -> None:
    limiter = Limiter("address", rate=2, burst=3)
    assert [limiter.take("a", 0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert limiter.take("b", 0) == 0, "others have their own"
    assert limiter.take("a", 0.5) == 0
    assert limiter.take("a", 0.5) == 0.5
    assert [limiter.take("a", 100) for _ in range(4)] == [0, 0, 0, 0.5], (
        "a rest gives a burst, not more"
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(1, 5), st.integers(1, 10))
def test_never_more_than_the_rate_and_one_burst(pauses: list[float], rate: int, burst: int) -> None:
    limiter, now, passed = Limiter("address", rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        wait = limiter.take("a", now)
        passed += not wait
        assert passed <= burst + rate * now + 1e-6
        if wait:
            assert limiter.take("a", now + wait - 1e-6) > 0
            assert limiter.take("a", now + wait + 1e-6) == 0
            now, passed = now + wait + 1e-6, passed + 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAXIMUM_KEYS", 100)
    limiter = Limiter("address", rate=1, burst=2)
    for _ in range(2):
        assert limiter.take("noisy", 0) == 0
    for number in range(1000):
        limiter.take(f"address-{number}", 0)
    assert len(limiter._due) <= 100
    assert limiter.take("noisy", 0) > 0, "who is over the limit is not forgotten"
