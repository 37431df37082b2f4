"""What all models of the API share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

DURATION = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
_DURATION_PARTS = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", use_enum_values=False
    )

    def dump(self) -> dict[str, Any]:
        """Plain JSON values under their camelCase names, without the fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def encoded(self) -> bytes:
        """The same as JSON."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Observed(Model):
    """Something that another program wrote: fields of a newer version are passed over."""

    model_config = ConfigDict(extra="ignore")


def parse_duration(text: str) -> timedelta:
    """``"1h2m30s"`` as a ``timedelta``; raises ``ValueError`` for anything else."""
    match = _DURATION_PARTS.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 2m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The inverse of ``parse_duration``, in whole seconds."""
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [
        f"{number}{unit}"
        for number, unit in ((hours, "h"), (minutes, "m"), (seconds, "s"))
        if number
    ]
    return "".join(parts) or "0s"


def _read_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def sentence(words: str) -> FieldInfo:
    """What the API server answers when the field's pattern does not match, in place of the pattern itself."""
    described: FieldInfo = Field(json_schema_extra={"x-sentence": words})
    return described


def clip(limit: int) -> BeforeValidator:
    """Cuts a text that somebody else words to ``limit`` characters, where a refusal would lose the whole object."""

    def cut(value: object) -> object:
        return f"{value[: limit - 1]}…" if isinstance(value, str) and len(value) > limit else value

    return BeforeValidator(cut)


def rfc3339(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
            "x-sentence": "a duration is written like 30s, 2m or 1h30m",
        }
    ),
]
Time = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
