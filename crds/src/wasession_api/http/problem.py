"""Problem details (RFC 9457): the error responses of the session pod and the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, ValidationError

from wasession_api.base import Observed
from wasession_api.v1alpha1 import Phase

MEDIA_TYPE = "application/problem+json"


class Problem(Observed):
    """Why a request failed."""

    type: str = Field(
        "about:blank",
        description="URI of the problem type; `about:blank` when the status says it all.",
    )
    title: str = Field(description="Summary of the problem type; the same for each occurrence.")
    status: int = Field(ge=400, le=599, description="HTTP status of the response.")
    detail: str = Field(description="Explanation of this occurrence, in a sentence.")
    phase: Phase | None = Field(
        None, description="Phase of the session, if the request was about one."
    )


class HTTPProblem(Exception):
    """End a request with a problem.

    ``headers`` are added to the response, such as ``Retry-After``. The error handler adds the
    session's phase.
    """

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})

    def problem(self, phase: Phase | None = None) -> Problem:
        return Problem(title=self.title, status=self.status, detail=self.detail, phase=phase)


def to_problem(error: ValidationError) -> HTTPProblem:
    """Return the problem that answers a request which a model rejected."""
    malformed = error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
    if malformed:
        return HTTPProblem(400, "Malformed JSON", "the body is not JSON")
    return HTTPProblem(422, "Bad request", describe_error(error))


def describe_error(error: ValidationError) -> str:
    """Return the first validation error as ``field: message``.

    The rejected value is left out: it may be somebody's message.
    """
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
