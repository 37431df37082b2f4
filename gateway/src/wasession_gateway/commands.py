"""What callers can do to sessions, over REST as over Socket.IO; raises ``HTTPProblem``."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, model_validator
from wasession_api import names
from wasession_api.base import Model
from wasession_api.http.problem import HTTPProblem, Problem
from wasession_api.kube import client as kube
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.client import read_body
from wasession_api.v1alpha1 import ClientId, PairingMethod, PhoneNumber, WhenDeleted

from wasession_gateway import restore
from wasession_gateway.auth import MAXIMUM_SUBJECT, Identity
from wasession_gateway.hibernation import is_requested
from wasession_gateway.pods import Pods
from wasession_gateway.problems import RETRY_LATER
from wasession_gateway.restore import Outcome, Step
from wasession_gateway.session import Session
from wasession_gateway.session_cache import Ambiguous, SessionCache, manifest
from wasession_gateway.settings import Settings

LOGOUT_MARGIN = 45.0  # seconds for the pod to begin, which may take thirty, and to answer
Owner = Annotated[str, StringConstraints(min_length=1, max_length=MAXIMUM_SUBJECT)]
NO_SUCH_SESSION = "you have no session with this clientId"
EXISTS = "a session with this clientId already exists"


class PairingChoice(Model):
    """How to link the phone."""

    method: PairingMethod = Field(
        PairingMethod.QR_CODE, description="A QR to scan, or a code to type on the phone."
    )
    phone_number: PhoneNumber | None = Field(
        None,
        description="The account's phone number, for a pairing code: country code and number, "
        "digits only.",
    )

    @model_validator(mode="after")
    def _require_number(self) -> PairingChoice:
        if self.method is PairingMethod.PAIRING_CODE and self.phone_number is None:
            raise ValueError("phoneNumber is required for a pairing code")
        return self


class NewSession(Model):
    """A session to create."""

    client_id: ClientId = Field(description="The session's name; two users may use the same one.")
    owner: Owner | None = Field(
        None, description="The owner; only admins may name anybody but themselves."
    )
    pairing: PairingChoice | None = Field(
        None, description="How to link the phone; with a QR when omitted."
    )


class Commands:
    """One per gateway."""

    def __init__(self, settings: Settings, sessions: SessionCache, pods: Pods) -> None:
        self._settings, self._sessions, self._pods = settings, sessions, pods
        self._pending: Counter[str] = Counter()  # creations by owner, not answered yet
        self._wake_ups: dict[str, asyncio.Task[Session]] = {}  # by the session's UID

    def find(self, caller: Identity, client_id: str, owner: str | None = None) -> Session:
        """Return the caller's session, for an admin that of ``owner``.

        Another user's session is reported as not found.
        """
        if not caller.admin:
            if owner not in (None, caller.subject):
                raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
            owner = caller.subject
        try:
            session = self._sessions.find(client_id, owner)
        except Ambiguous:
            raise HTTPProblem(
                409,
                "Several sessions",
                "several owners have a session with this clientId: specify the owner",
            ) from None
        if session is None:
            raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
        return session

    async def create(self, caller: Identity, wanted: NewSession) -> Session:
        owner = wanted.owner or caller.subject
        self._check_may_create(caller, owner)
        if self._sessions.find(wanted.client_id, owner) is not None:
            raise HTTPProblem(409, "Exists", EXISTS)
        limit = self._settings.max_sessions_per_owner
        if not caller.admin and self._sessions.count(owner) + self._pending[owner] >= limit:
            raise HTTPProblem(403, "Too many sessions", f"you may have at most {limit} sessions")
        pairing = wanted.pairing.dump() if wanted.pairing else None
        template = self._settings.session_template
        body = manifest(self._settings.namespace, owner, wanted.client_id, template, pairing)
        self._pending[owner] += 1
        try:
            return await self._sessions.create(body)
        except kube.Conflict:
            raise HTTPProblem(409, "Exists", EXISTS) from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None
        finally:
            self._pending[owner] -= 1
            if not self._pending[owner]:
                del self._pending[owner]

    def _check_may_create(self, caller: Identity, owner: str) -> None:
        if caller.admin:
            return
        if owner != caller.subject:
            raise HTTPProblem(403, "Not allowed", "only admins may create sessions for others")
        if not self._settings.allow_create:
            raise HTTPProblem(403, "Not allowed", "only admins may create sessions here")

    async def suspend(self, session: Session, suspend: bool, version: str | None = None) -> Session:
        return await self._patch(session, {"spec": {"suspend": suspend}}, version)

    async def restart(self, session: Session, version: str | None = None) -> Session:
        """Request that the operator replace the session's pod."""
        annotations = {names.ANNOTATION_RESTART: secrets.token_hex(8)}
        return await self._patch(session, {"metadata": {"annotations": annotations}}, version)

    async def wake(self, session: Session) -> Session:
        """Request that the operator wake the session, unless somebody has already."""
        if session.suspended:
            raise HTTPProblem(409, "Suspended", "the session is suspended: resume it")
        if is_requested(session):
            return session
        request = self._wake_ups.get(session.uid)
        if request is None:
            annotations = {names.ANNOTATION_WAKE: secrets.token_hex(8)}
            patch: Manifest = {"metadata": {"annotations": annotations}}
            request = asyncio.create_task(self._patch(session, patch))
            self._wake_ups[session.uid] = request
            request.add_done_callback(lambda done: self._wake_requested(session.uid, done))
        return await asyncio.shield(request)

    def _wake_requested(self, uid: str, request: asyncio.Task[Session]) -> None:
        del self._wake_ups[uid]
        if not request.cancelled():
            request.exception()  # retrieved here too, as all who asked may have gone

    async def delete(
        self, session: Session, *, logout: bool, delete_volume: bool, version: str | None = None
    ) -> None:
        """Delete the session.

        ``logout`` logs the device out of WhatsApp first, ``delete_volume`` deletes the volume with
        the login as well.
        """
        patch: Manifest = {}
        if logout:
            patch["metadata"] = {"annotations": {names.ANNOTATION_LOGOUT: "true"}}
        if delete_volume:
            patch["spec"] = {"storage": {"retention": {"whenDeleted": WhenDeleted.DELETE.value}}}
        if patch:
            patched = await self._patch(session, patch, version)
            version = patched.version if version is not None else None
        try:
            await self._sessions.delete(session, version)
        except kube.Conflict:
            raise _changed() from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None

    async def logout(self, session: Session) -> None:
        """End the login; return when WhatsApp has confirmed it."""
        timeout = logout_timeout(session)
        async with self._pods.request(session, "POST", "/v1/logout", timeout) as response:
            if response.status >= 400:
                raise _not_logged_out(response.status, await read_body(response))

    async def restore(self, session: Session, timeout: float) -> Outcome:
        """Restore the session; return when it is ready, cannot be, or after ``timeout`` seconds."""
        step, pod_before = restore.first_step(session), session.status.pod_uid
        last: Session | None = session
        if step is Step.RESUME:
            await self.suspend(session, suspend=False)
        elif step is Step.RESTART:
            await self.restart(session)
        elif step is Step.WAKE:
            await self.wake(session)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(timeout),
                contextlib.aclosing(self._sessions.states(session.name)) as states,
            ):
                async for last in states:
                    if (outcome := restore.outcome(last, step, pod_before)) is not None:
                        return outcome
        return restore.timed_out(last)

    async def _patch(
        self, session: Session, patch: Manifest, version: str | None = None
    ) -> Session:
        try:
            patched = await self._sessions.patch(session, patch, version)
        except kube.Conflict:
            raise _changed() from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None
        if patched is None:
            raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
        return patched


def logout_timeout(session: Session) -> float:
    """Return for how many seconds to wait for the pod's answer to a logout."""
    return session.logout_timeout.total_seconds() + LOGOUT_MARGIN


def _not_logged_out(status: int, body: bytes) -> HTTPProblem:
    """Return the pod's problem; unless it had not begun, the logout may still take effect."""
    try:
        detail = Problem.model_validate_json(body).detail
    except ValidationError:
        detail = f"the session's pod answered with status {status}"
    if status == 503:
        return HTTPProblem(503, "Not logged out", detail, RETRY_LATER)
    detail += "; the session may still be logged out: its state will tell"
    return HTTPProblem(504 if status == 504 else 502, "Outcome unknown", detail)


def _changed() -> HTTPProblem:
    return HTTPProblem(412, "Changed", "the session has changed in the meantime")
