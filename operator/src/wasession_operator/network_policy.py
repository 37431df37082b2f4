"""Build the NetworkPolicy of a class in a namespace: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wasession_api import names
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod import PORT

from wasession_operator import objects
from wasession_operator.plan.manifests import class_label

DNS, HTTPS = 53, 443
# Private, link-local (with the cloud's metadata service), carrier-grade NAT, loopback and reserved
# addresses, and IPv6 prefixes that lead to IPv4 addresses (NAT64, 6to4):
# https://www.iana.org/assignments/iana-ipv4-special-registry
# https://www.iana.org/assignments/iana-ipv6-special-registry
NOT_PUBLIC = {
    "0.0.0.0/0": [
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
        "127.0.0.0/8", "0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
    ],
    "::/0": ["fc00::/7", "fe80::/10", "::1/128", "64:ff9b::/96", "2002::/16"],
}  # fmt: skip
# The API server does not store these when they are empty.
OMITTED = ("ports", "from", "to", "except", "matchLabels", "matchExpressions", "values")


def policy_name(class_name: str) -> str:
    return f"wasession-{class_name}"


def make_network_policy(
    namespace: str, class_name: str, egress: Sequence[Manifest], peers: Sequence[Manifest]
) -> Manifest:
    """Return the policy of the class's session pods; ``peers`` can connect to their API.

    Without peers nobody can: a rule that names none would let everybody in.
    """
    api = {"from": list(peers), "ports": [_port("TCP", PORT)]}
    public = [
        {"ipBlock": {"cidr": cidr, "except": excluded}} for cidr, excluded in NOT_PUBLIC.items()
    ]
    spec = {
        "podSelector": {
            "matchLabels": {
                names.LABEL_NAME: names.APP_NAME,
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_CLASS: class_name,
            }
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [api] if peers else [],
        "egress": [
            {"ports": [_port("UDP", DNS), _port("TCP", DNS)]},
            {"to": public, "ports": [_port("TCP", HTTPS), _port("UDP", HTTPS)]},
            *egress,
        ],
    }
    stored = as_stored(spec)
    annotations = {names.ANNOTATION_TEMPLATE_HASH: spec_hash(stored)}
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_CLASS: class_name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": policy_name(class_name),
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": stored,
    }


def as_stored(value: Any) -> Any:
    """Return a part of a policy's spec as the API server stores it: with its defaults."""
    if isinstance(value, list):
        return [as_stored(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: as_stored(item) for key, item in value.items() if item or key not in OMITTED}
    if "ports" in result:
        result["ports"] = [{"protocol": "TCP"} | port for port in result["ports"]]
    return result


def is_as_desired(actual: Manifest, desired: Manifest, normalized: str | None = None) -> bool:
    """Return whether the API server has the policy as it should be; ``actual`` is as cached.

    ``normalized`` is the hash of what the API server is known to make of the desired spec.
    """
    for part in ("labels", "annotations"):
        present = actual["metadata"].get(part) or {}
        if not present.items() >= desired["metadata"][part].items():
            return False
    noted = desired["metadata"]["annotations"][names.ANNOTATION_TEMPLATE_HASH]
    return actual["specHash"] in (noted, normalized)


def spec_hash(spec: Manifest) -> str:
    """Return a hash of a policy's spec, without the empty lists that the API server omits."""
    return objects.digest({field: value for field, value in spec.items() if value != []})


def class_of_policy(policy: Manifest) -> str | None:
    """Return the class of a policy by its label; None unless its name is that class's policy's."""
    class_name = class_label(policy)
    if class_name is None or policy["metadata"]["name"] != policy_name(class_name):
        return None
    return class_name


def _port(protocol: str, number: int) -> Manifest:
    return {"protocol": protocol, "port": number}
