"""`python -m demo up|down`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.cluster import Cluster, ClusterRunning, binaries, host, images
from support.testbed import Testbed

from demo import story

GATEWAY = Path(__file__).with_name("gateway.yaml")
USAGE = """
The cluster stays up. Use it:

  export KUBECONFIG={kubeconfig}
  export PATH={binaries}:$PATH
  kubectl get wasessions
  kubectl get wasession demo -o yaml

The console, at http://127.0.0.1:8080/, and a token to sign in with:

  kubectl -n wasession-system port-forward service/wasession-gateway 8080:80
  kubectl -n wasession-system exec deployment/wasession-gateway -- \\
    python -m wasession_gateway.issue_token --admin me

Take it down:

  make demo-down
"""


def up() -> None:
    with story.step("host packages"):
        host.ensure("cluster", "images")
    cluster = Cluster(nodes=2)
    with ThreadPoolExecutor() as pool:
        built = pool.submit(build_images)
        with story.step(
            "Kubernetes, CoreDNS and Helm from their Go modules (built once per machine)"
        ):
            binaries.directory()
            binaries.put_on_path()
        with story.step("a Kubernetes cluster with two nodes"):
            try:
                cluster.start(detached=True)
            except ClusterRunning as error:
                sys.exit(f"{error}, with `make demo-down`")
        built.result()
    bed = Testbed(cluster, helm=str(binaries.path("helm")))
    with story.step("load the images into the nodes"):
        bed.load_images()
    with story.step("helm install: two operators and two gateways"):
        bed.install_operator("--values", str(GATEWAY))
    with story.step("the stand-in of web.whatsapp.com"):
        bed.install_standin()
    session = bed.session("demo")
    story.pair(bed, session)
    story.send(bed, session, "Hello from wasession")
    story.lose_pod(session)
    node = next(node for node in cluster.nodes if node.name == session.status["nodeName"])
    story.lose_power(bed, session, node)
    story.send(bed, session, "Still here, without another scan")
    print(USAGE.format(kubeconfig=cluster.kubeconfig_path, binaries=binaries.directory()))


def build_images() -> None:
    """Build them beside the programs: the one waits for the network while the other computes."""
    with story.step("images from the Dockerfile, meanwhile"):
        for target in images.TARGETS:
            images.archive(images.build(target))
            print(f"             {images.name(target)}  {images.size(target)}", flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["down"]:
            Cluster().stop()
        case _:
            sys.exit("usage: python -m demo up|down")


if __name__ == "__main__":
    main()
