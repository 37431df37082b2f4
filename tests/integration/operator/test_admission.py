"""What a tenant cannot reach who may create sessions, with the chart's policies and roles.

The API server is real, as are the CRDs, the ValidatingAdmissionPolicies and the aggregated roles.
Each row is something that a tenant tries, and the sentence that rejects it; what the table has is
tried as a new session, as one that is applied, and as three kinds of patch.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from integration.operator.conftest import SYSTEM, eventually, render
from support.fakes.api import MERGE_PATCH, Api, ApiError, Manifest, path
from support.fakes.world import Environment
from wasession_api.v1alpha1 import API_VERSION, Override
from wasession_operator.effective_spec import make_effective
from wasession_operator.plan.session_class import find_violation, parse_class

HOME, ELSEWHERE = "tenant-a", "other"
ALICE, BOB, CAROL = "alice", "bob", "carol"  # edit, no rights, admin
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
SESSIONS = path("whatsappsessions", HOME)
CLASSES = path("whatsappsessionclasses")
DEFAULT = {"wasession.dev/is-default-class": "true"}
LEASE_LABEL = {"wasession.dev/lease": "shard"}
WHO_WRITES = "which operator acts on sessions"

OVERRIDES = [
    "storage.size",
    "browser.resources",
    "browser.shmSize",
    "browser.locale",
    "browser.proxySecretRef",
]
CLASS_SPECS: dict[str, Manifest] = {
    "default": {
        "allowedNamespaces": ["tenant-*"],
        "overrides": OVERRIDES,
        "limits": {"storage": "2Gi", "cpu": "1", "memory": "1Gi"},
    },
    "strict": {},
    "elsewhere": {"allowedNamespaces": [ELSEWHERE, f"{HOME}-prod"], "overrides": [*Override]},
    "free": {"overrides": [*Override]},
    "narrowed": {"overrides": [*Override]},  # later it allows less
    "immutable": {"overrides": ["storage.storageClassName", "storage.accessMode"]},  # likewise
}


def obj(kind: str, name: str, namespace: str | None = None, **rest: Any) -> Manifest:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, **rest}


def session(name: str, spec: Any, **metadata: Any) -> Manifest:
    manifest = obj("WhatsAppSession", name, HOME, spec=spec)
    manifest["metadata"] |= metadata
    return manifest


def role_binding(user: str, role: str) -> Manifest:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user}-{role}", "namespace": HOME},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def message(error: pytest.ExceptionInfo[ApiError]) -> str:
    text: str = json.loads(str(error.value).partition(": ")[2])["message"]
    return text


@pytest.fixture(scope="module")
async def api(environment: Environment) -> AsyncIterator[Api]:
    """The administrator's client, where the chart's policies and roles hold for tenants."""
    api = environment.api
    installed: list[tuple[str, Manifest]] = []

    async def install(manifest: Manifest) -> None:
        plural = f"{manifest['kind'].lower()}s".replace("classs", "classes")
        plural = plural.replace("policys", "policies")
        await api.create(plural, manifest)
        installed.append((plural, manifest))

    for name in (HOME, ELSEWHERE):
        await api.create("namespaces", {"metadata": {"name": name}})
    for template in ("aggregate", "admission-policy", "lease-policy"):
        for manifest in render(f"templates/{template}.yaml"):
            await install(manifest)
    for name, spec in CLASS_SPECS.items():
        manifest = obj("WhatsAppSessionClass", name, spec=spec)
        manifest["metadata"]["annotations"] = DEFAULT if name == "default" else {}
        await install(manifest)
    await install(role_binding(ALICE, "edit"))
    await install(role_binding(CAROL, "admin"))
    await eventually(lambda: enforced(api))
    yield api
    for item in (await api.list("whatsappsessions", HOME))["items"]:
        await api.delete("whatsappsessions", HOME, item["metadata"]["name"])
    for plural, manifest in reversed(installed):
        await api.delete(
            plural, manifest["metadata"].get("namespace"), manifest["metadata"]["name"]
        )
    for name in (HOME, ELSEWHERE):
        await api.delete("namespaces", None, name)
    await eventually(lambda: lifted(api))


async def rejection(api: Api, user: str | None, spec: Manifest) -> str:
    """Return why such a session is rejected; empty if it is not."""
    try:
        await api.call("POST", f"{SESSIONS}?dryRun=All", session("probe", spec), user=user)
    except ApiError as error:
        return str(error)
    return ""


async def lease_rejection(
    api: Api, user: str | None, namespace: str, labels: Manifest, name: str | None = None
) -> str:
    """Return why this user cannot create such a Lease, or label the one that is there."""
    lease = {"metadata": {"name": name or "probe", "labels": labels}}
    where = f"{path('leases', namespace, name)}?dryRun=All"
    verb, kind = ("PATCH", MERGE_PATCH) if name else ("POST", "application/json")
    try:
        await api.call(verb, where, lease, kind, user)
    except ApiError as error:
        return str(error)
    return ""


async def enforced(api: Api) -> bool:
    """Return whether the API server has noticed policies, classes and roles."""
    probes: list[tuple[str, Manifest, str]] = [
        (ALICE, {"timeouts": {"shutdown": "10s"}}, "class default does not let"),
        (ALICE, {"owner": BOB}, "spec.owner"),
        (ALICE, {"className": "strict", "timeouts": {"shutdown": "10s"}}, "class strict does not"),
        (ALICE, {"className": "elsewhere"}, "class elsewhere, which allows"),
    ]
    return all(
        [sentence in await rejection(api, user, spec) for user, spec, sentence in probes]
        + [WHO_WRITES in await lease_rejection(api, ALICE, HOME, LEASE_LABEL)]
    )


async def lifted(api: Api) -> bool:
    manifest = obj("WhatsAppSession", "probe", "default", spec={"timeouts": {"shutdown": "10s"}})
    try:
        await api.call("POST", f"{path('whatsappsessions', 'default')}?dryRun=All", manifest)
    except ApiError:
        return False
    return True


# --- specs that are rejected however they come ----------------------------------------------------


class Attack(NamedTuple):
    """A spec, what it must not reach, and a pattern of the sentence that rejects it."""

    goal: str
    spec: Any
    sentence: str


FORBIDDEN = "does not let its sessions set it; fields that they can set: storage.size, "
STORAGE, CPU, MEMORY = (
    f"the class default allows {most} at most"
    for most in ("2Gi of storage", "1 of cpu", "1Gi of memory")
)
IMMUTABLE = f"{FORBIDDEN}|is immutable; delete the session and create another"
NUMBERS = "must be of type string|expected string"  # server-side apply checks types itself
QUANTITY = "must be a quantity such as 512Mi or 1Gi"
QUANTITIES = "must have quantities such as 512Mi or 1Gi"
PROXY = "must begin with wasession-proxy-: sessions can use no other Secrets"
OTHERS = "must be of cpu, memory and ephemeral-storage only"
OWN_NAME = "alice can set only alice as the owner|alice cannot change the owner of a session"


def resources(kind: str, **amounts: Any) -> Manifest:
    return {"browser": {"resources": {kind: amounts}}}


def proxy(name: Any) -> Manifest:
    return {"browser": {"proxySecretRef": {"name": name}}}


def size(value: Any) -> Manifest:
    return {"storage": {"size": value}}


def shm(value: Any) -> Manifest:
    return {"browser": {"shmSize": value}}


ATTACKS = [
    # Fields that the class keeps to itself.
    Attack("another StorageClass", {"storage": {"storageClassName": "fast"}}, IMMUTABLE),
    Attack("another access mode", {"storage": {"accessMode": "ReadWriteOncePod"}}, IMMUTABLE),
    Attack("deleted volumes", {"storage": {"retention": {"whenDeleted": "Delete"}}}, FORBIDDEN),
    Attack("another user agent", {"browser": {"userAgent": "x"}}, FORBIDDEN),
    Attack("another time zone", {"browser": {"timezone": "UTC"}}, FORBIDDEN),
    Attack("no sandbox", {"browser": {"sandbox": "Auto"}}, FORBIDDEN),
    Attack("a view of the page", {"browser": {"liveView": True}}, FORBIDDEN),
    Attack("another device name", {"whatsapp": {"deviceName": "x"}}, FORBIDDEN),
    Attack("a visible account", {"whatsapp": {"presence": "Available"}}, FORBIDDEN),
    Attack("endless takeovers", {"whatsapp": {"takeover": "Always"}}, FORBIDDEN),
    Attack("a long start", {"timeouts": {"initialization": "1h"}}, FORBIDDEN),
    Attack("a busy loop", {"reconnect": {"initialDelay": "1s", "maxDelay": "1s"}}, FORBIDDEN),
    Attack("updates at any time", {"updateStrategy": "RollingUpdate"}, FORBIDDEN),
    Attack(
        "an allowed field beside a forbidden one",
        {"browser": {"locale": "de", "timezone": "UTC"}},
        FORBIDDEN,
    ),
    Attack(
        "what a strict class forbids",
        {"className": "strict", **size("1Gi")},
        "the class strict does not let its sessions set it; fields that they can set: none",
    ),
    # Classes.
    Attack(
        "another namespace's class",
        {"className": "elsewhere"},
        "cannot use the class elsewhere, which allows the namespaces other, tenant-a-prod",
    ),
    Attack("a class that is no name", {"className": "../default"}, "must be a name of lower-case"),
    Attack("the default class by another name", {"className": ""}, "must be a name of lower-case"),
    Attack("a class in another case", {"className": "Free"}, "must be a name of lower-case"),
    # Limits.
    Attack("a large volume", size("3Gi"), STORAGE),
    Attack("one MiB too much", size("2049Mi"), STORAGE),
    Attack("one byte too much", size("2147483649"), STORAGE),
    Attack("decimal units", size("2200M"), STORAGE),
    Attack("a fraction", size("2.001Gi"), STORAGE),
    Attack("thousandths", size("2147483648001m"), STORAGE),
    Attack("a volume beyond all integers", size("99999999999999999999999999Ti"), STORAGE),
    Attack("an exponent", size("3e9"), QUANTITY),
    Attack("units that are not ours", size("1Ei"), QUANTITY),
    Attack("a sign", size("+3Gi"), QUANTITY),
    Attack("nothing at all", size("-1Gi"), QUANTITY),
    Attack("white space", size("3Gi "), QUANTITY),
    Attack("digits of another script", size("٣Gi"), QUANTITY),
    Attack("a number for a string", size(3 * 2**30), NUMBERS),
    Attack("all memory, by limit", resources("limits", memory="2Gi"), MEMORY),
    Attack("all memory, by request", resources("requests", memory="1025Mi"), MEMORY),
    Attack("all memory, by an integer", resources("limits", memory=2**30 + 1), MEMORY),
    Attack("all memory, by a big integer", resources("limits", memory=2**62), MEMORY),
    Attack("all memory, by /dev/shm", shm("1025Mi"), MEMORY),
    Attack("all memory, by an exponent", resources("limits", memory="2E9"), QUANTITIES),
    Attack("all memory, by a float", resources("limits", memory=2.5e9), f"Invalid value|{MEMORY}"),
    Attack("a /dev/shm by an exponent", shm("1e12"), QUANTITY),
    Attack("all CPUs, by limit", resources("limits", cpu="1001m"), CPU),
    Attack("all CPUs, by request", resources("requests", cpu=2), CPU),
    Attack("all CPUs, by a fraction", resources("limits", cpu="1.0001"), CPU),
    Attack("all CPUs, by thousands", resources("requests", cpu="1k"), CPU),
    Attack("CPUs of another name", resources("limits", CPU="64"), OTHERS),
    Attack("a device", resources("limits", **{"nvidia.com/gpu": 1}), OTHERS),
    Attack("huge pages", resources("limits", **{"hugepages-2Mi": "1Gi"}), OTHERS),
    Attack("an attached volume", resources("requests", storage="1Ti"), OTHERS),
    Attack("a key with a line break", resources("limits", **{"cpu\n": "64"}), "valid keys"),
    Attack("an empty key", resources("limits", **{"": "64"}), "valid keys"),
    Attack("a quantity that is an object", resources("limits", cpu={"a": 1}), "Invalid value"),
    Attack(
        "a huge map",
        resources("limits", **{f"r{number}": "1" for number in range(5000)}),
        "must have at most 8 items",
    ),
    # Secrets and names.
    Attack(
        "a Secret elsewhere",
        {"browser": {"proxySecretRef": {"namespace": "kube-system"}}},
        "name: Required value|field not declared in schema",
    ),
    Attack("a password of an application", proxy("database"), PROXY),
    Attack("the token of a session", proxy("wasession-token-sales"), PROXY),
    Attack("the prefix alone", proxy("wasession-proxy-"), PROXY),
    Attack("the prefix in another case", proxy("Wasession-Proxy-A"), PROXY),
    Attack("the prefix in the middle", proxy("a-wasession-proxy-a"), PROXY),
    Attack("a file of the node", proxy("wasession-proxy-/../../etc"), PROXY),
    Attack("a second line", proxy("wasession-proxy-a\nb"), PROXY),
    Attack("several Secrets", proxy(["a"]), NUMBERS),
    Attack("escape sequences in a terminal", {"owner": "\x1b[2J"}, "must not contain control"),
    Attack("the login of another session", {"clientId": "../sales"}, "clientId"),
    Attack("two pods", {"replicas": 2}, "must be 1"),
    # Owners.
    Attack("somebody else's name", {"owner": BOB}, OWN_NAME),
    Attack("the same name in another case", {"owner": "Alice"}, OWN_NAME),
    Attack("the same name with a space", {"owner": "alice "}, OWN_NAME),
    Attack(
        "a name of the cluster",
        {"owner": "system:serviceaccount:kube-system:default"},
        OWN_NAME,
    ),
]


async def created(api: Api, spec: Manifest) -> None:
    await api.call("POST", SESSIONS, session("attack", spec), user=ALICE)


async def generated(api: Api, spec: Manifest) -> None:
    manifest = session("", spec, generateName="attack-")
    del manifest["metadata"]["name"]
    await api.call("POST", SESSIONS, manifest, user=ALICE)


async def applied(api: Api, spec: Manifest) -> None:
    url = f"{SESSIONS}/attack?fieldManager=attack&force=true"
    await api.call("PATCH", url, session("attack", spec), APPLY_PATCH, ALICE)


async def merged(api: Api, spec: Manifest) -> None:
    await api.call("PATCH", f"{SESSIONS}/standing", {"spec": spec}, MERGE_PATCH, ALICE)


async def replaced(api: Api, spec: Manifest) -> None:
    standing = await api.get("whatsappsessions", HOME, "standing")
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": standing["metadata"]["uid"]},
        {"op": "replace", "path": "/spec", "value": spec},
    ]
    await api.call("PATCH", f"{SESSIONS}/standing", patch, JSON_PATCH, ALICE)


async def put(api: Api, spec: Manifest) -> None:
    standing = await api.get("whatsappsessions", HOME, "standing")
    await api.call("PUT", f"{SESSIONS}/standing", {**standing, "spec": spec}, user=ALICE)


async def applied_to_standing(api: Api, spec: Manifest) -> None:
    url = f"{SESSIONS}/standing?fieldManager=attack&force=true"
    await api.call("PATCH", url, session("standing", spec), APPLY_PATCH, ALICE)


WAYS = (created, generated, applied, merged, replaced, put, applied_to_standing)


@pytest.fixture(autouse=True)
async def nothing_gets_through(api: Api) -> AsyncIterator[None]:
    yield
    sessions = (await api.list("whatsappsessions", HOME))["items"]
    names = [s["metadata"]["name"] for s in sessions if s["metadata"]["name"].startswith("attack")]
    for name in names:
        await api.delete("whatsappsessions", HOME, name)
    assert not names


@pytest.fixture(scope="module")
async def standing(api: Api) -> Manifest:
    """A session of the default class that nobody owns."""
    return await api.call("POST", SESSIONS, session("standing", {}), user=ALICE)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.goal.replace(" ", "_"))
async def test_a_session_does_not_reach(api: Api, standing: Manifest, attack: Attack) -> None:
    for way in WAYS:
        with pytest.raises(ApiError) as error:
            await way(api, attack.spec)
        assert re.search(attack.sentence, message(error)), way.__name__
    assert (await api.get("whatsappsessions", HOME, "standing"))["spec"] == standing["spec"]


# --- what sessions do not have --------------------------------------------------------------------

UNKNOWN: list[tuple[str, Manifest]] = [
    ("another image", {"image": "evil"}),
    ("another image", {"browser": {"image": "evil"}}),
    ("a flag", {"extraArgs": ["--renderer-cmd-prefix=/bin/sh -c id"]}),
    ("a flag", {"browser": {"extraArgs": ["--no-sandbox"]}}),
    ("another page", {"whatsappURL": "https://evil.example"}),
    ("another page", {"whatsapp": {"url": "https://evil.example"}}),
    ("another authority", {"caBundle": {"configMapName": "evil"}}),
    ("another script", {"waJS": {"configMapName": "evil", "sha256": "a" * 64}}),
    ("another page", {"whatsappDocument": {"configMapName": "evil", "sha256": "a" * 64}}),
    ("a network path", {"egress": [{}]}),
    ("root", {"podTemplate": {"spec": {"securityContext": {"runAsUser": 0}}}}),
    ("root", {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}),
    ("a ServiceAccount", {"podTemplate": {"spec": {"serviceAccountName": "default"}}}),
    ("a ServiceAccount", {"serviceAccountName": "default"}),
    ("the node's files", {"podTemplate": {"spec": {"volumes": [{"hostPath": {"path": "/"}}]}}}),
    ("the node's files", {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}),
    ("the node's network", {"podTemplate": {"spec": {"hostNetwork": True}}}),
    ("another container", {"podTemplate": {"spec": {"containers": [{"image": "evil"}]}}}),
    ("a program", {"command": ["/bin/sh"], "args": ["-c", "id"]}),
    ("an environment variable", {"env": [{"name": "LD_PRELOAD", "value": "/evil.so"}]}),
    ("priority", {"podTemplate": {"spec": {"priorityClassName": "system-node-critical"}}}),
    ("control-plane nodes", {"podTemplate": {"spec": {"tolerations": [{"operator": "Exists"}]}}}),
    ("labels of the operator", {"podTemplate": {"metadata": {"labels": {"wasession.dev/a": "b"}}}}),
    ("its own limits", {"limits": {"memory": "1Ti"}}),
    ("its own permissions", {"overrides": ["timeouts"]}),
    ("fields by another spelling", {"Browser": {"shmsize": "64Gi"}, "browser": {"ShmSize": "1Ti"}}),
]


@pytest.mark.parametrize(("goal", "spec"), UNKNOWN, ids=lambda value: str(value)[:50])
async def test_a_session_has_no_field_for(
    api: Api, standing: Manifest, goal: str, spec: Manifest
) -> None:
    """A strict client gets a sentence; to another one, the field does not exist."""
    requests = (
        ("POST", SESSIONS, session("attack", spec), "application/json"),
        ("PATCH", f"{SESSIONS}/standing", {"spec": spec}, MERGE_PATCH),
    )
    for verb, url, body, kind in requests:
        with pytest.raises(ApiError) as error:
            await api.call(verb, f"{url}?fieldValidation=Strict", body, kind, ALICE)
        assert "unknown field" in message(error), goal
        result = await api.call(verb, f"{url}?dryRun=All", body, kind, ALICE)
        more = [value for key, value in result["spec"].items() if key not in standing["spec"]]
        assert all(value == {} for value in more), goal


async def test_a_session_does_not_bring_its_status(api: Api) -> None:
    manifest = session("attack", {}) | {"status": {"phase": "Ready", "pvcCapacity": "1Ti"}}
    result = await api.call("POST", f"{SESSIONS}?dryRun=All", manifest, user=ALICE)
    assert "status" not in result


# --- requests that are not for a session ----------------------------------------------------------


class Request(NamedTuple):
    """A request of Alice, what it must not reach, and a part of the sentence that rejects it."""

    goal: str
    verb: str
    url: str
    body: Any
    sentence: str
    kind: str = "application/json"


CLASS = obj("WhatsAppSessionClass", "mine", spec={"image": "evil"})
POLICY = "wasession-system-wasession-operator-class"
GRANT: Manifest = {
    **role_binding(ALICE, "admin"),
    "metadata": {"name": "mine", "namespace": HOME},
}
SCALE = {"spec": {"replicas": 0}}
READY = {"status": {"phase": "Ready", "sessionValid": True}}
REQUESTS = [
    Request("a class", "POST", CLASSES, CLASS, "cannot create"),
    Request(
        "a class by apply",
        *("PATCH", f"{CLASSES}/mine?fieldManager=a", CLASS, "cannot patch", APPLY_PATCH),
    ),
    Request(
        "a wider class",
        *("PATCH", f"{CLASSES}/default", {"spec": {"limits": None}}, "cannot patch", MERGE_PATCH),
    ),
    Request(
        "the default class",
        *("PATCH", f"{CLASSES}/free", {"metadata": {"annotations": DEFAULT}}, "cannot patch"),
        MERGE_PATCH,
    ),
    Request(
        "another default class, by status",
        *("PATCH", f"{CLASSES}/free/status", {"metadata": {"annotations": DEFAULT}}),
        *("cannot patch", MERGE_PATCH),
    ),
    Request("no class", "DELETE", f"{CLASSES}/default", None, "cannot delete"),
    Request("no classes", "DELETE", CLASSES, None, "cannot deletecollection"),
    Request(
        "no policy",
        *("DELETE", path("validatingadmissionpolicies", None, POLICY), None, "cannot delete"),
    ),
    Request(
        "no binding",
        *("DELETE", path("validatingadmissionpolicybindings", None, POLICY), None, "cannot delete"),
    ),
    Request(
        "another schema",
        *("PATCH", path("customresourcedefinitions", None, "whatsappsessions.wasession.dev")),
        {"spec": {"scope": "Cluster"}},
        *("cannot patch", MERGE_PATCH),
    ),
    Request(
        "a session in another namespace",
        *("POST", path("whatsappsessions", ELSEWHERE)),
        *(obj("WhatsAppSession", "attack", ELSEWHERE, spec={}), "cannot create"),
    ),
    Request(
        "a session of another namespace, by its URL",
        *("POST", SESSIONS, obj("WhatsAppSession", "attack", ELSEWHERE, spec={})),
        "does not match the namespace",
    ),
    Request(
        "its status", "PATCH", f"{SESSIONS}/standing/status", READY, "cannot patch", MERGE_PATCH
    ),
    Request("its status by put", "PUT", f"{SESSIONS}/standing/status", READY, "cannot update"),
    Request("its scale", "PATCH", f"{SESSIONS}/standing/scale", SCALE, "cannot patch", MERGE_PATCH),
    Request("the rights of an admin", "POST", path("rolebindings", HOME), GRANT, "cannot create"),
    Request(
        "another merge",
        *("PATCH", f"{SESSIONS}/standing", {"spec": {"timeouts": {"shutdown": "9s"}}}),
        *("the body of the request was in an unknown format", STRATEGIC_PATCH),
    ),
    Request("a list for a spec", "POST", SESSIONS, session("attack", []), "must be of type object"),
    Request(
        "a word for a spec", "POST", SESSIONS, session("attack", "a"), "must be of type object"
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda row: row.goal.replace(" ", "_"))
@pytest.mark.usefixtures("standing")
async def test_a_tenant_does_not_reach(api: Api, request_: Request) -> None:
    with pytest.raises(ApiError) as error:
        await api.call(request_.verb, request_.url, request_.body, request_.kind, ALICE)
    assert request_.sentence in str(error.value)


# --- the owner of a session that is there ---------------------------------------------------------


def owner_patches(owner: str | None) -> list[tuple[Any, str]]:
    operation = {"op": "remove"} if owner is None else {"op": "add", "value": owner}
    return [
        ({"spec": {"owner": owner}}, MERGE_PATCH),
        ([{"path": "/spec/owner", **operation}], JSON_PATCH),
        (
            [{"op": "replace", "path": "/spec", "value": {"owner": owner} if owner else {}}],
            JSON_PATCH,
        ),
    ]


UNCHANGEABLE = "alice cannot change the owner of a session without the verb"
OWNERS: list[tuple[str | None, str | None, str]] = [
    (ALICE, BOB, UNCHANGEABLE),  # a gift
    (ALICE, None, UNCHANGEABLE),
    (BOB, ALICE, UNCHANGEABLE),  # a takeover
    (BOB, None, UNCHANGEABLE),
    (BOB, CAROL, UNCHANGEABLE),
    (None, BOB, UNCHANGEABLE),
    (None, ALICE, UNCHANGEABLE),  # whoever is the first to name an owner would get the login
]


@pytest.mark.parametrize(("before", "after", "sentence"), OWNERS)
async def test_only_assign_owner_changes_the_owner(
    api: Api, before: str | None, after: str | None, sentence: str
) -> None:
    spec = {} if before is None else {"owner": before}
    await api.call("POST", SESSIONS, session("owned", spec), user=CAROL)
    for patch, kind in owner_patches(after):
        with pytest.raises(ApiError) as error:
            await api.call("PATCH", f"{SESSIONS}/owned", patch, kind, ALICE)
        assert error.value.status == 403
        assert sentence in message(error)
    await api.call("PATCH", f"{SESSIONS}/owned", *owner_patches(after)[0], CAROL)
    stored = await api.get("whatsappsessions", HOME, "owned")
    assert stored["spec"].get("owner") == after
    await api.delete("whatsappsessions", HOME, "owned")


async def test_the_owner_cannot_change_while_the_session_is_deleted(api: Api) -> None:
    """A finalizer of one's own would give time for it."""
    manifest = session("dying", {"owner": BOB}, finalizers=["example.com/stay"])
    await api.call("POST", SESSIONS, manifest, user=CAROL)
    await api.call("DELETE", f"{SESSIONS}/dying", user=ALICE)
    with pytest.raises(ApiError) as error:
        await api.call("PATCH", f"{SESSIONS}/dying", {"spec": {"owner": ALICE}}, MERGE_PATCH, ALICE)
    assert UNCHANGEABLE in message(error)
    await release(api, "dying")


async def release(api: Api, name: str) -> None:
    """Remove the finalizers as Alice; the session goes."""
    patch = {"metadata": {"finalizers": None}}
    await api.call("PATCH", f"{SESSIONS}/{name}", patch, MERGE_PATCH, ALICE)
    with pytest.raises(ApiError) as error:
        await api.get("whatsappsessions", HOME, name)
    assert error.value.status == 404


# --- Leases ---------------------------------------------------------------------------------------


async def test_who_writes_leases_cannot_pretend_to_be_an_operator(
    api: Api, environment: Environment
) -> None:
    """An operator gives way to another one, and the cluster's role edit may write Leases."""
    await api.create("leases", {"metadata": {"name": "own", "namespace": HOME}})
    assert await lease_rejection(api, ALICE, HOME, {}) == ""
    assert await lease_rejection(api, ALICE, HOME, {"team": "chat"}, "own") == ""
    assert WHO_WRITES in await lease_rejection(api, ALICE, HOME, LEASE_LABEL)
    assert WHO_WRITES in await lease_rejection(api, ALICE, HOME, LEASE_LABEL, "own")
    assert await lease_rejection(api, environment.user, SYSTEM, LEASE_LABEL) == ""


# --- another class --------------------------------------------------------------------------------

SWITCHES: list[tuple[Manifest, str]] = [
    ({"className": "default"}, "the class default does not let its sessions set it"),
    ({"className": None}, "the class default does not let its sessions set it"),
    ({"className": "strict"}, "the class strict does not let its sessions set it"),
    ({"className": "elsewhere"}, "cannot use the class elsewhere"),
]


@pytest.mark.parametrize(("patch", "sentence"), SWITCHES)
async def test_another_class_holds_what_is_set_already(
    api: Api, patch: Manifest, sentence: str
) -> None:
    manifest = session("switching", {"className": "free", "timeouts": {"shutdown": "10s"}})
    await api.call("POST", SESSIONS, manifest, user=ALICE)
    try:
        with pytest.raises(ApiError) as error:
            await api.call("PATCH", f"{SESSIONS}/switching", {"spec": patch}, MERGE_PATCH, ALICE)
        assert sentence in message(error)
        healed = {"spec": {**patch, "timeouts": None}}
        if patch["className"] != "elsewhere":
            await api.call("PATCH", f"{SESSIONS}/switching", healed, MERGE_PATCH, ALICE)
    finally:
        await api.delete("whatsappsessions", HOME, "switching")


# --- what passes ----------------------------------------------------------------------------------

LEGITIMATE: list[Manifest] = [
    {},
    {"owner": ALICE},
    {"className": "default"},
    {"className": "strict", "owner": ALICE},
    {"className": "free", "timeouts": {"shutdown": "10s"}, **size("9Ti")},
    {"className": "missing"},  # the operator starts no pod for it
    {"timeouts": {}, "whatsapp": {}, "storage": {"retention": {}}},  # nothing is set
    resources("limits", memory=None),  # nor here
    size("2Gi"),
    size("2147483648"),
    size("2048Mi"),
    shm("1Gi"),
    proxy("wasession-proxy-a"),
    resources("limits", memory=2**30, cpu=1),
    resources("limits", memory="1Gi", cpu="1000m"),
    resources("requests", memory="0.5Gi", cpu="0.25"),
    resources("limits", **{"ephemeral-storage": "1Gi"}),
    {"browser": {"locale": "de", "resources": {}}, "suspend": True, "logoutOnDelete": True},
    {"pairing": {"method": "PairingCode", "phoneNumber": "15551234567"}, "clientId": "sales"},
]


@pytest.mark.parametrize("spec", LEGITIMATE, ids=lambda spec: json.dumps(spec)[:60])
async def test_a_legitimate_session_passes(api: Api, spec: Manifest) -> None:
    url = f"{SESSIONS}?dryRun=All"
    await api.call("POST", url, session("legitimate", spec), user=ALICE)


async def test_a_session_without_a_spec_passes(api: Api) -> None:
    manifest = session("legitimate", None)
    await api.call("POST", f"{SESSIONS}?dryRun=All", manifest, user=ALICE)
    del manifest["spec"]
    await api.call("POST", f"{SESSIONS}?dryRun=All", manifest, user=ALICE)


async def test_tenants_see_their_sessions(api: Api, standing: Manifest) -> None:
    assert (await api.call("GET", f"{SESSIONS}/standing", user=ALICE))["spec"] == standing["spec"]
    assert (await api.call("GET", f"{SESSIONS}/standing/status", user=ALICE))["spec"]


async def test_what_was_allowed_before_can_be_kept_healed_and_deleted(api: Api) -> None:
    """A class may be narrowed while it has sessions."""
    spec = {"className": "narrowed", "timeouts": {"shutdown": "10s"}}
    for name in ("old", "older"):
        manifest = session(name, spec, finalizers=["example.com/stay"])
        await api.call("POST", SESSIONS, manifest, user=ALICE)
    await api.patch("whatsappsessionclasses", None, "narrowed", {"spec": {"overrides": []}})
    await eventually(lambda: rejects(api, spec, "class narrowed does not let"))
    old = f"{SESSIONS}/old"
    note = {"metadata": {"annotations": {"wasession.dev/restart": "1"}, "labels": {"a": "b"}}}
    await api.call("PATCH", old, note, MERGE_PATCH, ALICE)
    await api.patch("whatsappsessions", HOME, "old", {"status": {"phase": "Failed"}}, "status")
    with pytest.raises(ApiError) as error:
        await api.call("PATCH", old, {"spec": {"suspend": True}}, MERGE_PATCH, ALICE)
    assert "spec.timeouts: the class narrowed does not let its sessions set it" in message(error)
    await api.call("PATCH", old, {"spec": {"timeouts": None}}, MERGE_PATCH, ALICE)
    for name in ("old", "older"):
        await api.call("DELETE", f"{SESSIONS}/{name}", user=ALICE)
    # Nothing starts for a session that is being deleted, so the class no longer matters.
    await api.call(
        "PATCH", f"{SESSIONS}/older", {"spec": {"logoutOnDelete": True}}, MERGE_PATCH, ALICE
    )
    for name in ("old", "older"):
        await release(api, name)


async def test_immutable_values_of_a_narrowed_class_are_no_dead_end(api: Api) -> None:
    """The CRD forbids to change or remove them, so the class cannot ask for it."""
    storage = {"storageClassName": "fast", "accessMode": "ReadWriteOncePod"}
    spec = {"className": "immutable", "storage": storage}
    await api.call("POST", SESSIONS, session("old", spec), user=ALICE)
    await api.patch("whatsappsessionclasses", None, "immutable", {"spec": {"overrides": []}})
    sentence = "the class immutable does not let its sessions set it"
    await eventually(lambda: rejects(api, spec, sentence))
    old = f"{SESSIONS}/old"
    await api.call("PATCH", old, {"spec": {"suspend": True}}, MERGE_PATCH, ALICE)
    for change in ({"size": "2Gi"}, {"retention": {"whenDeleted": "Delete"}}):
        with pytest.raises(ApiError) as error:
            await api.call("PATCH", old, {"spec": {"storage": change}}, MERGE_PATCH, ALICE)
        assert sentence in message(error)
    for field in storage:
        with pytest.raises(ApiError) as error:
            await api.call("PATCH", old, {"spec": {"storage": {field: None}}}, MERGE_PATCH, ALICE)
        assert "is immutable" in message(error)
    await api.call("DELETE", old, user=ALICE)


async def rejects(api: Api, spec: Manifest, sentence: str) -> bool:
    return sentence in await rejection(api, ALICE, spec)


async def test_many_sessions_can_be_deleted_at_once(api: Api) -> None:
    await api.call("DELETE", f"{SESSIONS}?dryRun=All", user=ALICE)


# --- the operator decides the same ----------------------------------------------------------------

SIZES = ("64Mi", "1Gi", "2Gi", "2049Mi", "3G", "1.5Gi")
AMOUNTS = ("100m", "1", "1500m", "512Mi", "1Gi", "1025Mi", "1.5Gi", "2Ti", 1, 2**30, 2**30 + 1)
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "storage": {
        "size": SIZES,
        "accessMode": ("ReadWriteOncePod",),
        "storageClassName": ("fast",),
        "retention": ({}, {"whenDeleted": "Delete"}),
    },
    "browser": {
        "shmSize": SIZES,
        "timezone": ("UTC",),
        "proxySecretRef": ({"name": "wasession-proxy-a"},),
        "liveView": (False, True),
    },
    "whatsapp": {"presence": ("Available",), "takeover": ("Once",)},
    "timeouts": {"shutdown": ("10s",)},
    "reconnect": {"maxDelay": ("10s",)},
}
NAMESPACES = (HOME, ELSEWHERE, "tenant*", "tenant-*", "tenant-b*", "*", f"{HOME}b")


def some(rng: random.Random, choices: dict[str, tuple[Any, ...]]) -> Manifest:
    """Return an object with some of the fields."""
    names = [name for name in choices if rng.random() < 0.25]
    return {name: rng.choice(choices[name]) for name in names}


def random_spec(rng: random.Random) -> Manifest:
    spec = {name: some(rng, fields) for name, fields in CHOICES.items() if rng.random() < 0.4}
    if rng.random() < 0.5:
        kinds = [kind for kind in ("requests", "limits") if rng.random() < 0.7]
        amounts = {"cpu": AMOUNTS, "memory": AMOUNTS}
        spec.setdefault("browser", {})["resources"] = {kind: some(rng, amounts) for kind in kinds}
    return spec


def random_class(rng: random.Random) -> Manifest:
    """Return a class whose own values are within its limits."""
    limits = {"storage": SIZES[1:], "cpu": ("100m", "1", "1.5"), "memory": ("1Gi", "1100M", "2Gi")}
    spec: Manifest = {
        "overrides": rng.sample([*Override], rng.choice((0, 8, len(Override)))),
        "limits": some(rng, limits),
    }
    if rng.random() < 0.3:
        spec["allowedNamespaces"] = rng.sample(NAMESPACES, rng.randint(1, 3))
    return spec


async def test_the_operator_decides_the_same(api: Api) -> None:
    """Random sessions of random classes: the policy and the operator reject the same ones."""
    rng = random.Random(seed := random.randrange(10**6))  # noqa: S311
    specs = {f"random-{number}": random_class(rng) for number in range(12)} | {"last": {}}
    classes = [
        await api.create("whatsappsessionclasses", obj("WhatsAppSessionClass", name, spec=spec))
        for name, spec in specs.items()
    ]

    async def noticed() -> bool:
        """Return whether the API server has noticed the last class, and so all of them."""
        spec = {"className": "last", "timeouts": {"shutdown": "10s"}}
        return "the class last" in await rejection(api, ALICE, spec)

    try:
        await eventually(noticed)
        outcomes = [
            await compare(api, stored, random_spec(rng), seed)
            for stored in classes
            for _ in range(40)
        ]
    finally:
        for name in specs:
            await api.delete("whatsappsessionclasses", None, name)
    assert min(outcomes.count(True), outcomes.count(False)) > 50


async def compare(api: Api, session_class: Manifest, spec: Manifest, seed: int) -> bool | None:
    """Return whether the session is rejected; None if the CRD itself rejects it."""
    parsed = parse_class(session_class)
    spec = {"className": parsed.name, **spec}
    reason = await rejection(api, ALICE, spec)
    if reason and "ValidatingAdmissionPolicy" not in reason:
        return None
    effective = make_effective(spec, parsed.name, parsed.stored)
    violation = find_violation(spec, HOME, parsed, effective)
    assert bool(reason) == (violation is not None), (seed, parsed.stored, spec, reason, violation)
    return bool(reason)
