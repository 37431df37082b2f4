"""The page of deliveries says what was measured, and what is not within its goal."""

from __future__ import annotations

from bench.delivery.report import page, picture
from bench.delivery.results import Drain, Kills, Latency, Results

KILLS = Kills(
    seed=1,
    rate=20,
    kills=100,
    deaths=20,
    logins_lost=0,
    sent=12_345,
    lost=0,
    requests=12_400,
    repeated=55,
    out_of_order=0,
    seconds=600,
)
LATENCY = Latency(
    rate=50, count=3000, message_p50=13, message_p99=89, stored_p50=5.25, stored_p99=30
)
DRAIN = Drain(
    events=100_000,
    stored_per_second=20_000,
    drained_per_second=499,
    memory_mib_before=60,
    memory_mib_most=64,
)


def test_the_page_has_each_contender_and_each_goal() -> None:
    peer = KILLS.model_copy(update={"lost": 2000, "logins_lost": 96})
    plain = LATENCY.model_copy(update={"stored_p50": None, "stored_p99": None})
    found = Results(
        conditions={"python": "3.11"},
        latency={"wasession": LATENCY, "plain": plain},
        drain=DRAIN,
        kills={"wasession": KILLS, "whatsapp-web.js": peer},
    )
    text = "\n".join(page(found))
    assert "| lost | 0 | 2,000 | 0 |" in text
    assert "| logins lost | 0 | 96 | 0 |" in text
    assert "| wasession | 3,000 | 13.0 / 89.0 ms | 5.2 / 30.0 ms | 20 / 100 ms: reached |" in text
    assert "| plain | 3,000 | 13.0 / 89.0 ms |  |  |" in text
    assert "goal 500/s: not reached" in text
    drawn = picture(found)
    assert "2,000 of 12,345" in drawn
    assert "whatsapp-web.js" in drawn


def test_a_page_without_results() -> None:
    assert "## Kills" not in "\n".join(page(Results()))
    assert picture(Results()).startswith("<svg")
