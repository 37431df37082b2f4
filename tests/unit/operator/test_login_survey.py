"""The survey of all logins: what counts, and who shares a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from wasession_api.kube.client import PVCS, Rejected, Resource, ResourceExpired, Unavailable
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
        self.may_go_on, self.has_begun = asyncio.Event(), asyncio.Event()
        self.begun = 0
        self.expires = False
        self.rejects: set[str | None] = set()  # namespaces; None: all at once
        self.failing: str | None = None  # a namespace whose claims cannot be listed
        self.rejection: str | None = None  # of that one, as an informer has found

    async def pages(
        self, resource: Resource, namespace: str | None, **_: Any
    ) -> AsyncGenerator[dict[str, Any]]:
        if namespace in self.rejects:
            raise Rejected(f"no {resource.plural} of {namespace}")
        if resource is PVCS:
            if self.failing is not None and namespace == self.failing:
                raise Unavailable("500")
            yield {"items": [claim for claim in self.claims if is_in(claim, namespace)]}
            return
        self.begun += 1
        self.has_begun.set()
        listed = list(self.sessions)
        await self.may_go_on.wait()
        if self.expires:
            raise ResourceExpired
        yield {"items": [one for one in listed if is_in(one, namespace)]}

    def survey(self, *namespaces: str) -> LoginSurvey:
        return LoginSurvey(self, namespaces or [None], lambda _: self.rejection)  # type: ignore[arg-type]

    async def copies(self, *namespaces: str) -> tuple[list[str], str | None]:
        """Return the names of the sessions with the login l1, and what may be missing."""
        self.may_go_on.set()
        copies, gap = await self.survey(*namespaces).copies_of("l1")
        return [copy.key[1] for copy in copies], gap


def is_in(obj: dict[str, Any], namespace: str | None) -> bool:
    return namespace in (None, obj["metadata"]["namespace"])


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
    [copy], _ = await lists.survey().copies_of("l1")
    assert copy.has_given_way is has_given_way


async def test_the_claim_tells_of_a_session_that_knows_nothing_yet() -> None:
    lists = Lists(session("new"), session("other"))
    lists.may_go_on.set()
    lists.claims.append(
        {"metadata": {"namespace": "ns", "name": "wasession-new", "annotations": {NOTE: "l1"}}}
    )
    [copy], _ = await lists.survey().copies_of("l1")
    assert (copy.key, copy.has_given_way) == (("ns", "new"), False)


async def test_a_list_that_began_before_the_question_is_no_answer() -> None:
    lists = Lists()
    survey = lists.survey()
    first = asyncio.create_task(survey.copies_of("l1"))
    await lists.has_begun.wait()
    lists.sessions.append(restoring("late", "VolumeRestoring"))
    later = [asyncio.create_task(survey.copies_of("l1")) for _ in range(5)]
    await asyncio.sleep(0)
    lists.may_go_on.set()
    assert await first == ([], None)
    assert [len(copies) for copies, _ in await asyncio.gather(*later)] == [1] * 5
    assert lists.begun == 2, "the five share one"


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"))
    survey = lists.survey()
    impatient, patient = (asyncio.create_task(survey.copies_of("l1")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    lists.may_go_on.set()
    assert len((await patient)[0]) == 1


async def test_a_list_that_fails_is_no_answer_and_the_next_one_is() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"))
    lists.may_go_on.set()
    lists.expires, survey = True, lists.survey()
    with pytest.raises(Unavailable):
        await survey.copies_of("l1")
    lists.expires = False
    assert len((await survey.copies_of("l1"))[0]) == 1


async def test_sessions_of_namespaces_that_are_not_served_count_too() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"))
    assert await lists.copies("another") == (["copy"], None)


async def test_what_cannot_be_listed_is_said_and_the_rest_is_known() -> None:
    lists = Lists(restoring("copy", "VolumeRestoring"), session("new"))
    noted = {"namespace": "ns", "name": "wasession-new", "annotations": {NOTE: "l1"}}
    lists.claims.append({"metadata": noted})
    lists.rejects = {None, "closed"}
    names, gap = await lists.copies("closed", "ns")
    assert (sorted(names), gap) == (["copy", "new"], "no whatsappsessions of None")


async def test_claims_that_cannot_be_listed_are_a_gap_too() -> None:
    lists = Lists(session("new"))
    lists.rejects = {"ns"}
    assert await lists.copies("ns") == ([], "no persistentvolumeclaims of ns")


async def test_an_operator_of_the_whole_cluster_knows_all_or_nothing() -> None:
    lists = Lists()
    lists.rejects = {None}
    with pytest.raises(Rejected):
        await lists.copies()


async def test_a_namespace_that_goes_on_failing_holds_up_itself_alone() -> None:
    lists = Lists(session("s", {"sessionValid": True, "loginID": "l1"}), session("t"))
    lists.failing = "ns"
    with pytest.raises(Unavailable):
        await lists.copies("ns", "other")
    lists.rejection = "500"
    assert await lists.copies("ns", "other") == (["s"], "500")
