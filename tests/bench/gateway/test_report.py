"""The numbers become the right tables."""

from __future__ import annotations

from bench.gateway.report import table
from bench.gateway.results import Lists, Load, Quantiles, Results, Told


def load(connections: int, p99: float) -> Load:
    times = Quantiles(count=1000, p50=1.234, p99=p99, most=99)
    return Load(connections=connections, bytes=1500, per_second=812.3, milliseconds=times)


def test_quantiles() -> None:
    found = Quantiles.of([float(value) for value in range(101)])
    assert (found.count, found.p50, found.p99, found.most) == (101, 50, 99, 100)


def test_tables() -> None:
    lists = Lists(
        sessions=1000,
        loads={"us: a page": [load(1, 2), load(10, 30)], "them": [load(1, 1), load(10, 120)]},
    )
    told = Told(
        clients=2000,
        sessions=1,
        milliseconds=Quantiles(count=5, p50=9.87, p99=123.4, most=200),
        joined_seconds=2.04,
        kib_per_client=31.26,
        cpu_microseconds=44.4,
        idle_cpu_percent=0.3,
    )
    lines = table(
        Results(conditions={"python": "3"}, lists=lists, told={"us": [told]})
    ).splitlines()
    assert (
        lines[0]
        == "| p50 / p99 ms, answers a second | bytes | 1 at a time | 10 at a time | p99 ≤ 50 ms |"
    )
    assert "| us: a page | 1500 | 1.23 / 2.00, 812/s | 1.23 / 30.0, 812/s | reached |" in lines
    assert "| them | 1500 | 1.23 / 1.00, 812/s | 1.23 / 120, 812/s | not with 10 |" in lines
    assert "| us | 2000 in 1 | 9.87 / 123 | 31.3 KiB | 44 µs | 0.3 % | 2.0 s |" in lines
    assert lines[-1] == "python 3"
    assert table(Results()).strip() == ""
