"""One cluster with wasession and the stand-in installed, for all end-to-end tests."""

from __future__ import annotations

import pytest
from support.cluster import binaries
from support.testbed import Cluster, Testbed


@pytest.fixture(scope="session")
def bed(kind_cluster: Cluster) -> Testbed:
    bed = Testbed(kind_cluster, helm=binaries.tool("helm"))
    bed.load_images()
    bed.install_operator()
    bed.install_standin()
    return bed
