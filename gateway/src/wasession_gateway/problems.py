"""From exceptions to the problems that callers get."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from aiohttp import hdrs, web
from pydantic import ValidationError
from wasession_api.http.problem import HTTPProblem, to_problem
from wasession_api.kube.client import Unavailable

from wasession_gateway.auth import KeysUnavailable, Unauthorized
from wasession_gateway.pods import Interrupted, Unreachable

log = logging.getLogger(__name__)
RETRY_LATER = {"Retry-After": "5"}
PASSED_HEADERS = (hdrs.ALLOW, hdrs.LOCATION)


def problem_of(error: Exception) -> HTTPProblem:
    """Return the problem that an exception means to the caller; log what is not the caller's."""
    match error:
        case HTTPProblem():
            return error
        case ValidationError():
            return to_problem(error)
        case Unauthorized():
            return HTTPProblem(401, "Unauthorized", str(error), {"WWW-Authenticate": "Bearer"})
        case KeysUnavailable():
            return HTTPProblem(503, "Keys unavailable", str(error), RETRY_LATER)
        case Unreachable():
            return HTTPProblem(503, "Not available", str(error), RETRY_LATER)
        case Interrupted():
            return HTTPProblem(502, "No response", f"{error}; the request may have taken effect")
        case web.HTTPException():
            headers = {
                name: value for name, value in error.headers.items() if name in PASSED_HEADERS
            }
            return HTTPProblem(error.status, error.reason, error.text or error.reason, headers)
        case Unavailable():
            log.warning("API server unavailable; failing the request", extra={"error": str(error)})
            return HTTPProblem(
                503, "Not available", "the Kubernetes API does not answer", RETRY_LATER
            )
    log_unexpected(error, "unexpected error; failing the request")
    return HTTPProblem(500, "Internal error", "the gateway failed; see its log")


def shutting_down(advice: str) -> HTTPProblem:
    detail = f"this gateway is shutting down: {advice}"
    return HTTPProblem(503, "Shutting down", detail, {hdrs.RETRY_AFTER: "1"})


def late_body(seconds: float) -> HTTPProblem:
    return HTTPProblem(408, "Request timeout", f"the body did not arrive within {seconds:.0f} s")


def log_unexpected(error: Exception, message: str, **details: Any) -> None:
    """Log a bug by its location only: the error's message may contain user data."""
    where = traceback.format_tb(error.__traceback__)
    log.error(message, extra={"error": type(error).__name__, "traceback": where, **details})
