"""The results as a page with a picture: ``docs/benchmarks/delivery.md``, beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from bench.charts import Bar, Panel, Range, Row, draw, linear, logarithmic
from bench.delivery.measures import OURS
from bench.delivery.results import PATH, Drain, Kills, Latency, Results

PAGE, PICTURE = PATH.with_suffix(".md"), PATH.with_suffix(".svg")
LATENCY_GOALS, DRAIN_GOAL = (20, 100), 500  # milliseconds (p50, p99); events a second
COLOURS = {OURS: "#1a73e8"}
OTHERS = "#5f6368"


def write(found: Results) -> None:
    """Write page and picture."""
    PICTURE.write_text(picture(found))
    PAGE.write_text("\n".join(page(found)) + "\n")


def page(found: Results) -> Iterator[str]:
    yield from (
        "# Delivery, measured",
        "",
        "`make bench-delivery` and `make bench-delivery-kills` write this page. The numbers are in",
        "[delivery.json](delivery.json).",
        "",
        "![Lost messages, and the time to the receiver](delivery.svg)",
    )
    if found.kills:
        yield from kills_section(found.kills)
    if found.latency:
        yield from latency_section(found.latency)
    if found.drain is not None:
        yield from drain_section(found.drain)
    yield from ("", f"Conditions: {'; '.join(f'{k} {v}' for k, v in found.conditions.items())}.")


def kills_section(kills: dict[str, Kills]) -> Iterator[str]:
    one = next(iter(kills.values()))
    yield from (
        "",
        "## Kills",
        "",
        f"{one.rate:g} messages a second come in. All processes of a contender are killed",
        f"(SIGKILL) at {one.kills} random moments, and started again; for up to 0.3 s before a",
        "kill its page goes on while its program stands still. The receiver of the webhook dies",
        f"{one.deaths} times and keeps what it has answered with 200. The peer is unmodified",
        "whatsapp-web.js with one POST for each `message`, in the same run, with the same",
        "stand-in of WhatsApp Web; where a kill has cost it its login, a phone scans a QR at once.",
        "",
        "| | " + " | ".join(kills) + " | goal |",
        "| --- |" + " --- |" * (len(kills) + 1),
    )
    for label, field, goal in (
        ("kills", "kills", ""),
        ("messages sent", "sent", ""),
        ("lost", "lost", "0"),
        ("told more than once, under the same ID", "repeated", ""),
        ("out of order in their chat", "out_of_order", "0"),
        ("logins lost", "logins_lost", "0"),
    ):
        cells = (f"{getattr(one, field):,}" for one in kills.values())
        yield f"| {label} | {' | '.join(cells)} | {goal} |"


def latency_section(latency: dict[str, Latency]) -> Iterator[str]:
    one = next(iter(latency.values()))
    yield from (
        "",
        "## How soon",
        "",
        f"{one.rate} messages a second of one session, without a browser; `plain` is a program",
        "that keeps nothing: one POST for each message, all at once.",
        "",
        "| | count | message → receiver, p50 / p99 | stored → receiver, p50 / p99 | goal |",
        "| --- | --- | --- | --- | --- |",
    )
    for contender, found in latency.items():
        stored = verdict = ""
        if found.stored_p50 is not None and found.stored_p99 is not None:
            stored = f"{found.stored_p50:.1f} / {found.stored_p99:.1f} ms"
            within = found.stored_p50 <= LATENCY_GOALS[0] and found.stored_p99 <= LATENCY_GOALS[1]
            goals = f"{LATENCY_GOALS[0]} / {LATENCY_GOALS[1]} ms"
            verdict = f"{goals}: {'reached' if within else 'not reached'}"
        message = f"{found.message_p50:.1f} / {found.message_p99:.1f} ms"
        yield f"| {contender} | {found.count:,} | {message} | {stored} | {verdict} |"


def drain_section(drain: Drain) -> Iterator[str]:
    reached = "reached" if drain.drained_per_second >= DRAIN_GOAL else "not reached"
    yield from (
        "",
        "## A queue",
        "",
        f"{drain.events:,} events waited for a webhook.",
        "",
        f"- Stored at {drain.stored_per_second:,.0f}/s.",
        f"- Drained at {drain.drained_per_second:,.0f}/s; goal {DRAIN_GOAL}/s: {reached}.",
        f"- Memory of the process: {drain.memory_mib_before:.0f} MiB before,",
        f"  {drain.memory_mib_most:.0f} MiB at most.",
    )


def picture(found: Results) -> str:
    panels = list[Panel]()
    if found.kills:
        rows = [
            Row(name, Bar(one.lost), f"{one.lost:,} of {one.sent:,}", colour(name))
            for name, one in found.kills.items()
        ]
        most = max(one.lost for one in found.kills.values())
        panels.append(Panel("Messages lost, of all", linear("messages", max(most, 1)), rows))
    if found.latency:
        rows = [
            Row(
                name,
                Range(one.message_p50, one.message_p99),
                f"{one.message_p50:.0f} / {one.message_p99:.0f} ms",
                colour(name),
            )
            for name, one in found.latency.items()
        ]
        axis = logarithmic("ms", 1, max(one.message_p99 for one in found.latency.values()))
        panels.append(Panel("From a message to its receiver, p50 and p99", axis, rows))
    return draw("Delivery, measured", panels, "; ".join(found.conditions.values()))


def colour(contender: str) -> str:
    return COLOURS.get(contender, OTHERS)
