"""Rollouts: how a change of a class reaches its sessions, and how far one is."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from wasession_api.base import Duration, Model, Observed, Pattern, Time, clip, fallback
from wasession_api.v1alpha1 import timezones
from wasession_api.v1alpha1.spec import LabelValue

PERCENTAGE = re.compile(r"(100|[1-9][0-9]?)%")
MAXIMUM_STEP = 1_000_000


def _check_step(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and 1 <= value <= MAXIMUM_STEP:  # type: ignore[operator]
        return value
    if isinstance(value, str) and PERCENTAGE.fullmatch(value):
        return value
    raise ValueError("must be a number of sessions, or a percentage such as 10%")


ClassStep = Annotated[
    int | str,
    BeforeValidator(_check_step),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 16}),
]
SHORTEST_WINDOW, LONGEST_WINDOW = timedelta(minutes=1), timedelta(days=7)
LONGEST_SOAK = timedelta(days=7)
MAXIMUM_ACCEPTED = 1000  # as many as are updated at the same time


class Canary(Model):
    """The sessions that are updated first."""

    sessions: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="How many sessions are updated first; 0 for none. If unset, those with "
        "matchLabels, and at least one.",
    )
    match_labels: dict[str, LabelValue] = Field(
        {},
        description="Labels of the sessions to take first; where too few are Ready, others are taken.",
        max_length=8,
    )


class MaintenanceWindow(Model):
    """The times at which sessions may be updated."""

    schedule: Annotated[
        str,
        StringConstraints(min_length=1, max_length=64),
        Pattern(
            r"^\S+( \S+){4}$",
            "must be a schedule of five fields as for cron, such as 0 2 * * 1-5",
        ),
    ] = Field(description="When the window opens, as for cron, in timeZone, such as 0 2 * * 1-5.")
    duration: Duration = Field(
        description="For how long it is open; from 1m to 168h. What has begun by then is finished."
    )
    time_zone: Annotated[
        str,
        StringConstraints(max_length=64),
        Pattern(
            timezones.REGEX,
            "must be a name of the IANA time zone database, such as Europe/Berlin",
        ),
    ] = Field("UTC", description="Time zone of the schedule.")

    @model_validator(mode="after")
    def _check_duration(self) -> Self:
        if not SHORTEST_WINDOW <= self.duration <= LONGEST_WINDOW:
            raise ValueError("duration must be between 1m and 168h")
        return self


class Rollout(Model):
    """How a change of what session pods run reaches the sessions with RollingUpdate."""

    canary: Canary = Field(
        default_factory=Canary, description="The sessions that are updated first."
    )
    soak: Duration = Field(
        timedelta(minutes=1),
        description="For how long the canary, and the sessions of each step, have to stay well "
        "before the next step; at most 168h.",
    )
    steps: list[ClassStep] = Field(
        ["10%", "50%", "100%"],
        max_length=16,
        description="How many sessions are updated by the end of each step after the canary: "
        "numbers, or percentages such as 10%. All of them are in the end; a step that is reached "
        "already takes no time.",
    )
    max_concurrent: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="How many sessions are updated at the same time; the operator's "
        "maxConcurrentUpdates if unset.",
    )
    max_concurrent_per_node: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="How many of them on one node; no limit of its own if unset.",
    )
    maintenance_window: MaintenanceWindow | None = Field(
        None, description="The times at which sessions may be updated; at any time if unset."
    )
    paused: bool = Field(
        False, description="Update no session until this is false. What has begun is finished."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.soak > LONGEST_SOAK:
            raise ValueError("soak must be at most 168h")
        return self


class RolloutPhase(StrEnum):
    """How far a rollout is."""

    CANARY = "Canary"
    SOAKING = "Soaking"
    PROGRESSING = "Progressing"
    ROLLING_BACK = "RollingBack"
    WAITING_FOR_WINDOW = "WaitingForWindow"
    PAUSED = "Paused"
    HALTED = "Halted"
    COMPLETE = "Complete"


class Revision(Observed):
    """What session pods run as far as the class and the operator decide it."""

    name: str = Field(description="Hash of what follows from it for pods.", max_length=64)
    template: str | None = Field(
        None,
        description="The fields of the class's spec that decide it, as JSON; with the image that "
        "the operator's default was.",
        max_length=262144,
    )


class RolloutHalt(Observed):
    """The session that is not well after its update."""

    id: str = Field(
        description="Value of the annotation wasession.dev/resume-rollout of the class that accepts "
        "this and lets the rollout go on.",
        max_length=64,
    )
    session: str = Field(description="Namespace and name of the session.", max_length=320)
    reason: Annotated[str, clip(64)] = Field(
        description="What is wrong with it: the reason of its condition.", max_length=64
    )
    message: Annotated[str, clip(512)] = Field(
        "", description="Explanation of the reason.", max_length=512
    )


class RolloutStatus(Observed):
    """The rollout of the class to the sessions that one operator serves."""

    operator: str = Field(description="Namespace and name of the operator.", max_length=256)
    revision: str = Field(
        description="Name of the revision that sessions are updated to.", max_length=64
    )
    stable: Revision = Field(
        description="The last revision whose rollout is complete: what sessions run that it has not "
        "reached, also when their pod is created again."
    )
    previous: Revision | None = Field(
        None, description="The stable one before that; none if it was gone back to."
    )
    phase: Annotated[RolloutPhase, fallback(RolloutPhase.PROGRESSING)] = Field(
        description="How far it is."
    )
    step: int = Field(0, ge=0, description="Number of the present step; the canary's is 0.")
    since: Time = Field(description="Since when it is in this phase and step.")
    started: Time = Field(description="When the rollout of the revision began.")
    step_started: Time = Field(description="When the present step began.")
    total: int = Field(0, ge=0, description="Number of running sessions that it is for.")
    updated: int = Field(0, ge=0, description="How many of them are of the revision.")
    ready: int = Field(0, ge=0, description="How many of these are Ready.")
    message: Annotated[str, clip(1024)] = Field(
        "", description="What it waits for.", max_length=1024
    )
    halted: RolloutHalt | None = Field(
        None, description="The session that has halted it, until somebody goes on or undoes it."
    )
    accepted: Annotated[list[str], BeforeValidator(lambda v: list(v or [])[-MAXIMUM_ACCEPTED:])] = (
        Field(
            [],
            description="Sessions that are not well, and do not halt it any more.",
            max_length=MAXIMUM_ACCEPTED,
        )
    )
