"""What the images say about themselves."""

from __future__ import annotations

from support.cluster import images
from support.testbed import Testbed


def test_the_session_pods_image_names_its_chromium(bed: Testbed) -> None:
    command = ("run", "chromium", f"--image={images.name('session-pod')}", "--restart=Never")
    query = ("dpkg-query", "--showformat=${Version}", "--show", "chromium")
    bed.cluster.kubectl(*command, "--command", "--", *query)
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    bed.cluster.kubectl("wait", succeeded, "pod/chromium", "--timeout=120s")
    installed = bed.cluster.kubectl("logs", "chromium")
    bed.cluster.kubectl("delete", "pod", "chromium")
    assert images.label("session-pod", "wasession.dev/chromium-version") == installed
