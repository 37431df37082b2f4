"""What is published can be fetched again from a real registry.

``make release-drill`` runs it: it builds the registry and an image, which takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from support import registry
from support.cluster import binaries, images

from release import build, publish

VERSION = "1.2.3"
INDEX = "application/vnd.oci.image.index.v1+json"

pytestmark = pytest.mark.skipif(not os.environ.get("RELEASE_DRILL"), reason="make release-drill")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with registry.serving(tmp_path) as address:
        yield address


def test_chart_and_image_are_published(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = images.own_architecture()
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.setattr(publish, "IMAGES", ("gateway",))
    build.build_chart(VERSION, folder)
    build.build_image("gateway", architecture, VERSION, folder, datetime.now(UTC))
    repository = f"{address}/wasession"
    for command in publish.commands(VERSION, repository, [*folder.iterdir()], plain_http=True):
        subprocess.run(command, check=True, capture_output=True)

    url = f"http://{repository.replace('/', '/v2/', 1)}/gateway/manifests/{VERSION}"
    with urlopen(Request(url, headers={"Accept": INDEX})) as response:
        index = json.load(response)
    assert [one["platform"]["architecture"] for one in index["manifests"]] == [architecture]
    chart = f"oci://{repository}/charts/wasession-operator"
    command = [binaries.tool("helm"), "pull", chart, "--version", VERSION, "--plain-http"]
    subprocess.run([*command, "--destination", str(tmp_path)], check=True, capture_output=True)
    name = f"wasession-operator-{VERSION}.tgz"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
