"""Base classes and types of the API's models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

PATTERN_MESSAGE = "x-pattern-message"
DURATION = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
_DURATION_PARTS = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


class Model(BaseModel):
    """A model with camelCase aliases that rejects unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        use_enum_values=False,
        defer_build=True,  # of validators until they are used: no program uses all of them
    )

    def dump(self) -> dict[str, Any]:
        """Return JSON values by camelCase name, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def encoded(self) -> bytes:
        """Return the same as encoded JSON."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Observed(Model):
    """A model of what another program wrote, perhaps a newer one: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


def parse_duration(text: str) -> timedelta:
    """Return ``"1h2m30s"`` as a ``timedelta``; raise ``ValueError`` for anything else."""
    match = _DURATION_PARTS.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 2m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Return the inverse of ``parse_duration``, in whole seconds."""
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [
        f"{number}{unit}"
        for number, unit in ((hours, "h"), (minutes, "m"), (seconds, "s"))
        if number
    ]
    return "".join(parts) or "0s"


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 30s, 2m or 1h30m")  # noqa: TRY004 - pydantic's
    return parse_duration(value)


@dataclass(frozen=True)
class Pattern:
    """A regular expression for a whole string; errors have ``message``, not the expression.

    ``message`` reads after the field's name: "must be …". The CRD has both as a validation rule.
    """

    regex: str
    message: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._match, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.regex, PATTERN_MESSAGE: self.message}

    def _match(self, text: str) -> str:
        if re.fullmatch(self.regex, text) is None:
            raise ValueError(self.message)
        return text


def clip(limit: int) -> BeforeValidator:
    """Return a validator that truncates others' text to ``limit`` characters.

    Rejecting it would lose the whole object.
    """

    def truncate(value: object) -> object:
        return f"{value[: limit - 1]}…" if isinstance(value, str) and len(value) > limit else value

    return BeforeValidator(truncate)


def fallback(default: Any) -> WrapValidator:
    """Return a validator that replaces an invalid value: another version may know more values."""

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            return default

    return WrapValidator(validate)


def rfc3339(moment: datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    utc = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return f"{utc.isoformat()}Z"


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not a time between the years 1 and 9999") from None


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": DURATION,
            "minLength": 2,
            "maxLength": 24,
            "x-duration": True,
            PATTERN_MESSAGE: "must be a duration such as 30s, 2m or 1h30m",
        }
    ),
]
Time = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
]
