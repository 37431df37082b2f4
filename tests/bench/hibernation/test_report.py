"""What counts of a run, and what the page says of it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.hibernation import report, results
from bench.hibernation.report import page, picture
from bench.hibernation.results import Link, Run, Sample, Wake
from bench.hibernation.usage import MACHINE, SESSIONS


def wake(seconds: float, status: int | None = 200, **changed: object) -> Wake:
    made = Wake(
        session="s-0001", at=400, seconds=seconds, status=status, delivered=True, restored=True
    )
    return made.model_copy(update=changed)


def sample(seconds: float, pods: int, mib: float = 150) -> Sample:
    """Return a sample in which one of the pods is not Ready yet, and has half of the memory."""
    ready = pods - 1
    return Sample(
        seconds=seconds,
        interval=10,
        pods=pods,
        ready=ready,
        anonymous_mib=(ready + 0.5) * (mib - 10),
        shared_mib=(ready + 0.5) * 10,
        ready_mib=ready * mib,
        others_mib={"operator": 160, "gateway": 120},
        cpu_seconds={SESSIONS: 4, "operator": 0.5, "gateway": 0.2, MACHINE: 9},
        writes={"create pods": 2, "patch whatsappsessions/status": 10},
        lease_writes=16,
    )


def a_run(**changed: object) -> Run:
    made = Run(
        conditions={"machine": "2 cores"},
        seed=7,
        sessions=200,
        awake=20,
        minutes=60,
        ramp=315,
        interval=15.75,
        finished=True,
        links=[Link(session="s-0001", seconds=12), Link(session="s-0002", seconds=14)],
        wakes=[wake(4), wake(6), wake(10)],
        samples=[sample(100, 41, mib=999), sample(400, 21), sample(410, 19)],
        checks=[wake(5)],
        volumes_mib=[10, 20, 60],
    )
    return made.model_copy(update=changed)


def lines(found: Run | None) -> list[str]:
    return [*page(found)]


def test_only_samples_of_the_steady_time_count() -> None:
    run = a_run()
    assert [one.pods for one in run.steady] == [21, 19]
    assert run.sessions_mib == pytest.approx((20.5 + 18.5) / 2 * 150)


def test_what_all_would_need_awake_is_computed_of_those_that_are_ready() -> None:
    run = a_run()
    assert run.awake_mib == pytest.approx(150)
    assert run.always_awake_mib == pytest.approx(200 * 150)
    assert a_run(samples=[]).always_awake_mib is None
    assert a_run(samples=[sample(400, 1)]).awake_mib is None


def test_the_page_has_each_result_and_each_goal() -> None:
    text = lines(a_run())
    assert "| sessions that were linked | 2 of 200 | all |" in text
    assert "| answered, delivered once, and logged in without a QR | 3 of 3 | all |" in text
    assert "| text → answer, p50 / p99 / most | 6.0 / 9.9 / 10.0 s | p50 ≤ 8 s: reached |" in text
    assert "| session pods, on average / most | 20 / 21 |  |" in text
    assert "| memory of all session pods, on average / most | 2,925 / 3,075 MiB |  |" in text
    assert "| *computed*: memory of 200 sessions that are always awake | 30,000 MiB |  |" in text
    assert "| share of that which was needed | 10 % |  |" in text
    assert "| logged out at the end | 0 | 0 |" in text
    assert "| on a session's volume, p50 / most | 20.0 / 60.0 MiB |  |" in text
    assert "| … on all volumes | 90 MiB |  |" in text
    assert "| the operator | 160 MiB | 0.05 |" in text
    assert "| the whole machine |  | 0.90 |" in text
    assert "What went wrong:" not in text
    assert any("20 patch whatsappsessions/status, 4 create pods" in line for line in text)
    assert any("1.6 times a second" in line for line in text)


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (wake(60, 503, problem="Waking", delivered=False, restored=False), "503 Waking"),
        (wake(1, None, problem="TimeoutError", delivered=False), "no answer TimeoutError"),
        (wake(5, delivered=False), "not delivered once"),
        (wake(5, delivered=False, restored=False), "not delivered once and not restored"),
    ],
)
def test_a_failed_text_is_a_result(failed: Wake, said: str) -> None:
    text = lines(a_run(wakes=[wake(4), failed]))
    assert "| answered, delivered once, and logged in without a QR | 1 of 2 | all |" in text
    assert f"- {said}: 1 of the texts" in text


def test_a_text_without_an_answer_has_no_latency() -> None:
    slow = [wake(9), wake(9), wake(60, 503, problem="Waking")]
    assert report.latency(slow) == "9.0 / 9.0 / 9.0 s"
    assert report.goal(slow) == "p50 ≤ 8 s: not reached"
    assert report.latency([wake(60, 503)]) == "-"


def test_what_was_lost_is_told() -> None:
    broken = Link(session="s-0003", seconds=None, problem="TimeoutError while Pending")
    text = lines(a_run(links=[broken], logged_out=["s-0001"], nobody_slept=3))
    assert "| logged out at the end | 1 | 0 |" in text
    assert "- TimeoutError while Pending: 1 of the sessions" in text
    assert "- not sent, as no session slept: 3 of the texts" in text


def test_a_run_that_was_not_finished_says_so() -> None:
    begun = a_run(finished=False, wakes=[], samples=[], checks=[], volumes_mib=[])
    text = lines(begun)
    assert "**The run was not finished.** These are its results until then." in text
    assert "| logged out at the end | - | 0 |" in text
    assert not any("hibernation.svg" in line for line in text)
    assert not any("not finished" in line for line in lines(a_run()))


def test_a_page_without_results_says_so() -> None:
    assert lines(None)[-1] == "Nothing has been measured yet."


def test_the_picture_has_the_measured_and_the_computed() -> None:
    drawn = picture(a_run())
    text = [*ElementTree.fromstring(drawn).itertext()]  # noqa: S314 - it is our own
    assert "all awake: computed" in text
    assert "30,000 MiB" in text
    assert "goal of p50: 8 s" in text
    assert picture(a_run(wakes=[], samples=[])).startswith("<svg")


def test_results_are_saved_as_they_grow_and_read_again(tmp_path: Path) -> None:
    assert results.load(tmp_path) is None
    run = a_run(wakes=[])
    results.save(tmp_path, run)
    run.wakes.append(wake(3))
    results.save(tmp_path, run)
    assert results.load(tmp_path) == run
    report.write(tmp_path, run)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "hibernation.json",
        "hibernation.md",
        "hibernation.svg",
    ]
