"""``python -m wasession_operator``: run until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import resource

import kopf
from pydantic import ValidationError

from wasession_operator import handlers
from wasession_operator.settings import Settings


def main() -> None:
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"WASESSION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise SystemExit(f"invalid settings: {problems}") from None
    log_format = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    quiet = settings.log_level in ("WARNING", "ERROR")
    kopf.configure(log_format=log_format, debug=settings.log_level == "DEBUG", quiet=quiet)
    if settings.log_level != "DEBUG":
        # kopf logs each event that each handler has processed.
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    raise_descriptor_limit()
    registry = kopf.OperatorRegistry()
    handlers.register(registry, settings)
    operator = kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )
    try:
        asyncio.run(operator)
    except Exception:  # what kopf cannot recover from, such as a forbidden watch
        logging.getLogger(__name__).critical("operator failed; exiting", exc_info=True)
        raise SystemExit(1) from None


def raise_descriptor_limit() -> None:
    """Raise the soft limit of file descriptors to the hard one.

    The operator has a connection to each session pod. Container runtimes start processes with a
    soft limit of 1024, for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
