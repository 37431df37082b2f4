"""What callers can have done to sessions, whether they ask over REST or Socket.IO. Raises ``problem.HTTPProblem``."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from wasession_api import names
from wasession_api.base import Model
from wasession_api.http.problem import HTTPProblem
from wasession_api.kube import client as kube
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import ClientId, PairingMethod, PhoneNumber, WhenDeleted

from wasession_gateway import restore
from wasession_gateway.auth import LONGEST_SUBJECT, Identity
from wasession_gateway.pods import Pods
from wasession_gateway.restore import Outcome, Step
from wasession_gateway.session_cache import Ambiguous, Session, Sessions, manifest
from wasession_gateway.settings import Settings

LOGOUT_TIMEOUT = 45.0  # seconds; the session pod gives WhatsApp thirty
Owner = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SUBJECT)]
RETRY_LATER = {"Retry-After": "5"}
NO_SUCH_SESSION = "you have no session with this clientId"


class PairingChoice(Model):
    """How a phone is to be linked."""

    method: PairingMethod = Field(
        PairingMethod.QR_CODE, description="A QR to scan, or a code to type on the phone."
    )
    phone_number: PhoneNumber | None = Field(
        None,
        description="The account's phone number, for a pairing code: country code and number, digits only.",
    )

    @model_validator(mode="after")
    def _number_given(self) -> PairingChoice:
        if self.method is PairingMethod.PAIRING_CODE and self.phone_number is None:
            raise ValueError("phoneNumber is needed for a pairing code")
        return self


class NewSession(Model):
    """A session to make."""

    client_id: ClientId = Field(description="The session's name; two users may use the same.")
    owner: Owner | None = Field(
        None, description="Whose it is; only admins may name somebody else."
    )
    pairing: PairingChoice | None = Field(
        None, description="How a phone is to be linked; a QR when left out."
    )


class Commands:
    """One per gateway."""

    def __init__(self, settings: Settings, sessions: Sessions, pods: Pods) -> None:
        self._settings, self._sessions, self._pods = settings, sessions, pods
        self._making: Counter[str] = Counter()  # by owner, while the API server has not answered

    def find(self, who: Identity, client_id: str, owner: str | None = None) -> Session:
        """The caller's session; an admin may say whose. Another's is as if it were not there."""
        if not who.admin:
            if owner not in (None, who.subject):
                raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
            owner = who.subject
        try:
            session = self._sessions.find(client_id, owner)
        except Ambiguous:
            raise HTTPProblem(
                409,
                "Several sessions",
                "several owners have a session with this clientId: say which owner",
            ) from None
        if session is None:
            raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
        return session

    async def create(self, who: Identity, wanted: NewSession) -> Session:
        owner = wanted.owner or who.subject
        if not who.admin and owner != who.subject:
            raise HTTPProblem(403, "Not allowed", "only admins make sessions for others")
        if not who.admin and not self._settings.allow_create:
            raise HTTPProblem(403, "Not allowed", "sessions are not made here by their users")
        if self._sessions.find(wanted.client_id, owner) is not None:
            raise HTTPProblem(409, "Exists", "there is a session with this clientId already")
        most = self._settings.max_sessions_per_owner
        if not who.admin and self._sessions.count(owner) + self._making[owner] >= most:
            raise HTTPProblem(403, "Too many sessions", f"you may have {most} sessions at most")
        pairing = wanted.pairing.dump() if wanted.pairing else None
        body = manifest(
            self._settings.namespace,
            owner,
            wanted.client_id,
            self._settings.session_template,
            pairing,
        )
        self._making[owner] += 1
        try:
            return await self._sessions.create(body)
        except kube.Conflict:
            raise HTTPProblem(
                409, "Exists", "there is a session with this clientId already"
            ) from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None
        finally:
            self._making[owner] -= 1
            if not self._making[owner]:
                del self._making[owner]

    async def suspend(self, session: Session, suspend: bool, version: str | None = None) -> Session:
        return await self._patch(session, {"spec": {"suspend": suspend}}, version)

    async def restart(self, session: Session, version: str | None = None) -> Session:
        """Has the operator replace the session's pod."""
        return await self._patch(
            session,
            {"metadata": {"annotations": {names.ANNOTATION_RESTART: secrets.token_hex(8)}}},
            version,
        )

    async def delete(
        self, session: Session, *, logout: bool, delete_volume: bool, version: str | None = None
    ) -> None:
        """Deletes it; on request the device is logged out of WhatsApp first, and the volume with the login deleted after."""
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
            raise HTTPProblem(412, "Changed", "the session has changed since") from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None

    async def logout(self, session: Session) -> None:
        """Ends the login; returns when WhatsApp has confirmed it."""
        async with self._pods.ask(session, "POST", "/v1/logout", LOGOUT_TIMEOUT) as answer:
            if answer.status >= 400:
                raise HTTPProblem(
                    503,
                    "Not logged out",
                    "the session could not be logged out now; its login was kept",
                    RETRY_LATER,
                )

    async def restore(self, session: Session, timeout: float) -> Outcome:
        """Has the session come back, and says within ``timeout`` seconds whether it is ready or why not."""
        step, pod_before = restore.first_step(session), session.status.pod_uid
        last: Session | None = session
        if step is Step.RESUME:
            await self.suspend(session, suspend=False)
        elif step is Step.RESTART:
            await self.restart(session)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(timeout),
                contextlib.aclosing(self._sessions.states(session.name)) as states,
            ):
                async for now in states:
                    last = now
                    if (outcome := restore.outcome(now, step, pod_before)) is not None:
                        return outcome
        return restore.still_under_way(last)

    async def _patch(
        self, session: Session, patch: Manifest, version: str | None = None
    ) -> Session:
        try:
            found = await self._sessions.patch(session, patch, version)
        except kube.Conflict:
            raise HTTPProblem(412, "Changed", "the session has changed since") from None
        except kube.Rejected as error:
            raise HTTPProblem(422, "Not accepted", str(error)) from None
        if found is None:
            raise HTTPProblem(404, "Not found", NO_SUCH_SESSION)
        return found
