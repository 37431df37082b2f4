"""Errors over HTTP: problem+json (RFC 9457), of the session pod and of the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, ValidationError

from wasession_api.base import Observed
from wasession_api.v1alpha1 import Phase

MEDIA_TYPE = "application/problem+json"


class Problem(Observed):
    """What is wrong with a request, or why it cannot be answered now."""

    type: str = Field(
        "about:blank",
        description="A URI that names the kind of problem; `about:blank`: the status says it all.",
    )
    title: str = Field(
        description="The kind of problem in a few words; the same for each of its kind."
    )
    status: int = Field(ge=400, le=599, description="The answer's HTTP status.")
    detail: str = Field(description="What is wrong this time, in a sentence.")
    phase: Phase | None = Field(
        None, description="Where the session is in its life, when the request was about one."
    )


class HTTPProblem(Exception):
    """Ends a request with a problem.

    ``headers`` go with the answer, such as ``Retry-After``. Whoever words the answer adds the
    phase.
    """

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers = (
            status,
            title,
            detail,
            dict(headers or {}),
        )

    def problem(self, phase: Phase | None = None) -> Problem:
        return Problem(title=self.title, status=self.status, detail=self.detail, phase=phase)


def bad_request(error: ValidationError) -> HTTPProblem:
    """The problem with what a model refused."""
    malformed = error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
    if malformed:
        return HTTPProblem(400, "Malformed JSON", "the body is not JSON")
    return HTTPProblem(422, "Bad request", what_is_wrong(error))


def what_is_wrong(error: ValidationError) -> str:
    """The first thing that a model refused, as ``field: sentence``, without the value: that may be somebody's message."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    words = first["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if where else words
