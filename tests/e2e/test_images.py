"""What the images say about themselves, how large they are, and that nothing is missing in them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.cluster import images
from support.testbed import Testbed

from release import oci
from release.build import build_image
from release.signature import sha256

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"operator": 130, "gateway": 130, "session-pod": 750}  # MB, unpacked
MEGABYTES = {"MB": 1.0, "GB": 1000.0}
SOURCES = {"operator": ("crds", "operator"), "gateway": ("crds", "gateway")}
TRACE = """
import logging, os
from wasession_api import tracing
logging.disable()
os.environ["OTEL_TRACES_EXPORTER"] = "otlp"
tracing.configure("test")
span = tracing.begin("test")
span.fail("Error")
print(span.headers["traceparent"][:3])
span.end()
tracing.close()
"""
BROWSE = Path(__file__).with_name("browse.py").read_text()


def run(bed: Testbed, target: str, program: str) -> str:
    """Return what a Python program prints in a pod of an image."""
    pod = f"test-{target}"
    command = ("run", pod, f"--image={images.name(target)}", "--restart=Never", "--command")
    bed.cluster.kubectl(*command, "--", "python", "-c", program)
    try:
        ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
        bed.cluster.kubectl("wait", ended, f"pod/{pod}", "--timeout=120s")
        return bed.cluster.kubectl("logs", pod)
    finally:
        bed.cluster.kubectl("delete", "pod", pod)


@pytest.mark.parametrize("target", LIMITS)
def test_an_image_is_small(bed: Testbed, target: str) -> None:
    size = re.fullmatch(r"([\d.]+) ?([MG]B)", images.size(target))
    assert size is not None
    assert float(size[1]) * MEGABYTES[size[2]] <= LIMITS[target]


@pytest.mark.parametrize("target", LIMITS)
def test_an_image_says_what_it_is(bed: Testbed, target: str) -> None:
    def label(key: str) -> str:
        return images.label(target, f"org.opencontainers.image.{key}")

    build_arguments = images.labels()
    assert label("title") == f"wasession {target.replace('-', ' ')}"
    assert label("description")
    assert label("licenses") == "Apache-2.0"
    assert label("version") == build_arguments["VERSION"]
    if revision := build_arguments["REVISION"]:  # of a checkout of git
        # There may be commits since the build.
        git = ["git", "-C", str(ROOT), "merge-base", "--is-ancestor"]
        subprocess.run([*git, label("revision"), revision], check=True)
    assert label("source") == build_arguments["SOURCE"]
    assert "debian:bookworm" in label("base.name")


def test_the_session_pods_image_names_its_chromium(bed: Testbed) -> None:
    program = "import subprocess; subprocess.run(['chromium', '--version'])"
    named = images.label("session-pod", "wasession.dev/chromium-version")
    assert run(bed, "session-pod", program).startswith(f"Chromium {named.partition('-')[0]} ")


@pytest.mark.parametrize("target", SOURCES)
def test_what_is_used_of_the_kubernetes_client_is_there(bed: Testbed, target: str) -> None:
    used = {
        name
        for package in SOURCES[target]
        for path in (ROOT / package / "src").rglob("*.py")
        for name in used_of_kubernetes(ast.parse(path.read_text()))
    }
    assert "kubernetes.aio.client.ApiClient" in used
    program = (
        f"import pkgutil; [pkgutil.resolve_name(name) for name in {sorted(used)}]; print('ok')"
    )
    assert run(bed, target, program) == "ok\n"


def used_of_kubernetes(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module imports of the Kubernetes client, and their attributes."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kubernetes.")
        for alias in node.names
    }
    yield from imported.values()
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id=name)) if name in imported:
                yield f"{imported[name]}.{node.attr}"


@pytest.mark.parametrize("target", LIMITS)
def test_an_image_has_what_traces_need(bed: Testbed, target: str) -> None:
    assert run(bed, target, TRACE) == "00-\n"


@pytest.mark.parametrize("target", LIMITS)
def test_an_image_has_certificate_authorities(bed: Testbed, target: str) -> None:
    program = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(run(bed, target, program)) > 100


def test_the_session_pods_image_has_all_that_chromium_and_playwright_need(bed: Testbed) -> None:
    seen = json.loads(run(bed, "session-pod", BROWSE))
    assert seen["screenshot"].startswith("89504e47")
    assert seen["snapshot"] == '- heading "Hello" [level=1]'
    assert seen["number"] == "1.234,5", "ICU knows other languages than English"
    assert seen["day"] == "1970年1月1日木曜日"
    assert seen["type"] == "application/vnd.oasis.opendocument.text", "from shared-mime-info"


def test_a_released_image_has_a_bill_of_materials(bed: Testbed, tmp_path: Path) -> None:
    architecture = images.own_architecture()
    build_image("gateway", architecture, "1.2.3", tmp_path, datetime.now(UTC))
    name = f"wasession-gateway-1.2.3-linux-{architecture}"
    assert oci.read_file(tmp_path / f"{name}.tar", "etc/os-release")
    text = (tmp_path / f"{name}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    [digest] = document["metadata"]["component"]["hashes"]
    assert digest["content"] == sha256(tmp_path / f"{name}.tar")
    found = {component["purl"].partition("@")[0] for component in document["components"]}
    assert {"pkg:pypi/aiohttp", "pkg:deb/debian/libc6"} <= found
