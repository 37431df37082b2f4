"""What is installed and built before the first test: it may take longer than a test may."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import nats, prometheus, s3, snapshots
from support.chart import programs
from support.cluster import binaries, host, images

Step = Callable[[], object]


def prepare(items: Iterable[pytest.Item], cluster: str) -> None:
    """Install and build what the fixtures of these tests need, side by side."""
    fixtures = {name for item in items for name in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor() as pool:
        for step in _steps(fixtures, cluster):
            pool.submit(_run, step)


def _steps(fixtures: set[str], cluster: str) -> Iterable[Step]:
    embedded = "kind_cluster" in fixtures and cluster == "embedded"
    if embedded:
        yield functools.partial(host.ensure, "cluster")
    if embedded or "environment" in fixtures:
        yield binaries.directory
    if "chart_programs" in fixtures:
        yield programs.build
    if {"nats", "broker"} & fixtures:
        yield nats.program
    if {"controller", "driver"} & fixtures:
        yield snapshots.directory
    for program in sorted({"promtool", "prometheus"} & fixtures):
        yield functools.partial(prometheus.program, program)
    if {"s3", "store"} & fixtures:
        yield s3.program
    if "chromium" in fixtures:
        yield functools.partial(host.ensure, "browser")
    if "bed" in fixtures:
        yield functools.partial(_build_images, archive=embedded)


def _build_images(*, archive: bool) -> None:
    for target in images.TARGETS:
        name = images.build(target)
        if archive:
            images.archive(name)


def _run(step: Step) -> None:
    # The fixture tries the same and fails its tests with what is missing.
    with contextlib.suppress(SystemExit):
        step()
