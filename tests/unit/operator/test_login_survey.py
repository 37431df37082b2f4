"""The survey of all logins: what counts, and who shares a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from wasession_api.kube.client import PVCS, Resource, ResourceExpired, Unavailable
from wasession_operator.login_survey import LoginSurvey

NOTE = "wasession.dev/login-id"


def session(name: str, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": f"uid-of-{name}", "generation": 2}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def restoring(name: str, reason: str, generation: int = 2) -> dict[str, Any]:
    bootstrap = {"loginID": "l1", "state": "Restoring", "at": "2026-01-02T03:04:05Z"}
    ready = {"type": "Ready", "status": "False", "reason": reason}
    status = {"bootstrap": bootstrap, "conditions": [ready], "observedGeneration": generation}
    return session(name, status)


def suspended(generation: int, phase: str = "Suspended") -> dict[str, Any]:
    return {
        "sessionValid": True, "loginID": "l1", "phase": phase, "observedGeneration": generation,
    }  # fmt: skip


class Lists:
    """The API server: its lists wait until they may go on."""

    def __init__(self, *sessions: dict[str, Any]) -> None:
        self.sessions = list(sessions)
        self.claims: list[dict[str, Any]] = []
        self.may_go_on = asyncio.Event()
        self.begun = 0
        self.expires = False

    async def pages(
        self, resource: Resource, namespace: str | None, **_: Any
    ) -> AsyncGenerator[dict[str, Any]]:
        if resource is PVCS:
            yield {"items": self.claims}
            return
        self.begun += 1
        listed = list(self.sessions)
        await self.may_go_on.wait()
        if self.expires:
            raise ResourceExpired
        yield {"items": listed}

    def survey(self) -> LoginSurvey:
        return LoginSurvey(self, [None])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "has_given_way"),
    [
        (session("s", suspended(2), suspend=True), True),
        (session("s", suspended(1), suspend=True), False),
        (session("s", suspended(2, "Ready"), suspend=True), False),
        (session("s", suspended(2)), False),
        (restoring("s", "LoginMoved"), True),
        (restoring("s", "LoginMoved", generation=1), False),
        (restoring("s", "VolumeRestoring"), False),
    ],
)
async def test_only_what_is_written_proves_that_a_session_stays_stopped(
    one: dict[str, Any], has_given_way: bool
) -> None:
    lists = Lists(one)
    lists.may_go_on.set()
    [copy] = await lists.survey().copies_of("l1")
    assert copy.has_given_way is has_given_way


async def test_the_claim_tells_of_a_session_that_knows_nothing_yet() -> None:
    lists = Lists(session("new"), session("other"))
    lists.may_go_on.set()
    lists.claims.append(
        {"metadata": {"namespace": "ns", "name": "wasession-new", "annotations": {NOTE: "l1"}}}
    )
    [copy] = await lists.survey().copies_of("l1")
    assert (copy.key, copy.has_given_way) == (("ns", "new"), False)


async def test_a_list_that_began_before_the_question_is_no_answer() -> None:
    lists = Lists()
    survey = lists.survey()
    first = asyncio.create_task(survey.copies_of("l1"))
    while lists.begun < 1:
        await asyncio.sleep(0)
    lists.sessions.append(restoring("late", "VolumeRestoring"))
    later = [asyncio.create_task(survey.copies_of("l1")) for _ in range(5)]
    await asyncio.sleep(0)
    lists.may_go_on.set()
    assert await first == []
    assert [len(copies) for copies in await asyncio.gather(*later)] == [1] * 5
    assert lists.begun == 2, "the five share one"


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"))
    survey = lists.survey()
    impatient, patient = (asyncio.create_task(survey.copies_of("l1")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    lists.may_go_on.set()
    assert len(await patient) == 1


async def test_a_list_that_fails_is_no_answer_and_the_next_one_is() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"))
    lists.may_go_on.set()
    lists.expires, survey = True, lists.survey()
    with pytest.raises(Unavailable):
        await survey.copies_of("l1")
    lists.expires = False
    assert len(await survey.copies_of("l1")) == 1
