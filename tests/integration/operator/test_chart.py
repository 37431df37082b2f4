"""What the chart renders for the operator, and what its roles grant."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from integration.operator.conftest import SYSTEM, eventually, render
from pydantic import ValidationError
from support.cluster import binaries
from support.fakes.api import Api, ApiError, Manifest, path
from support.fakes.world import Environment
from support.testbed import CHART
from wasession_operator.settings import Settings

Rights = set[tuple[str, str]]
WATCHED = ("--set", "watchNamespaces={a,b}")
MONITORED = ("--set", "metrics.serviceMonitor.enabled=true")
SNAPSHOTS = ("--set", "backups.snapshots.enabled=true")
GATEWAY_OF_A = ("--set", "gateway.enabled=true,gateway.namespace=a")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("wasession", "wasession-operator"),
        ("operator", "operator-wasession-operator"),
        ("w", "w-wasession-operator"),
        ("staging", "staging-wasession-operator"),
        ("staging-wasession-operator", "staging-wasession-operator"),
    ],
)
def test_releases_do_not_share_a_name(release: str, name: str) -> None:
    [deployment] = render("templates/deployment.yaml", release=release)
    assert deployment["metadata"]["name"] == name


@pytest.mark.parametrize("setting", ["cleanupInterval", "leaseDuration"])
@pytest.mark.parametrize("duration", ["0s", "0h0m0s", "10"])
def test_a_duration_of_nothing_is_rejected(setting: str, duration: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        render("templates/deployment.yaml", "--set", f"settings.{setting}={duration}")


def test_a_gateway_of_a_namespace_that_the_operator_does_not_serve_is_rejected() -> None:
    assert render("templates/gateway/deployment.yaml", *WATCHED, *GATEWAY_OF_A)
    for namespace in ("", "c"):  # the release's own when empty
        gateway = f"gateway.enabled=true,gateway.namespace={namespace}"
        with pytest.raises(subprocess.CalledProcessError):
            render("templates/gateway/deployment.yaml", *WATCHED, "--set", gateway)


def test_a_route_without_a_parent_is_rejected() -> None:
    route = "gateway.enabled=true,gateway.httpRoute.enabled=true,gateway.settings.trustedProxies=1"
    assert render(
        "templates/gateway/httproute.yaml",
        *("--set", f"{route},gateway.httpRoute.parentRefs[0].name=public"),
    )
    with pytest.raises(subprocess.CalledProcessError):
        render("templates/gateway/httproute.yaml", "--set", route)


# --- what the operator gets -----------------------------------------------------------------------


def pod_of(*options: str) -> Manifest:
    [deployment] = render("templates/deployment.yaml", *options)
    result: Manifest = deployment["spec"]["template"]["spec"]
    return result


def environment_of(pod: Manifest) -> dict[str, str]:
    [container] = pod["containers"]
    return {
        variable["name"]: variable["value"] for variable in container["env"] if "value" in variable
    }


def test_every_setting_is_one_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the chart's defaults are its own, except for what depends on the release."""
    of_the_release = {"session_image", "operator_name", "network_policy_peers"}
    pod = pod_of()
    [container] = pod["containers"]
    names = {variable["name"].removeprefix("WASESSION_").lower() for variable in container["env"]}
    assert names <= Settings.model_fields.keys()
    defaults = {
        name: Settings.model_fields[name].get_default(call_default_factory=True)
        for name in names - of_the_release - {"pod_name", "pod_uid"}
    }
    for name, value in environment_of(pod).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert {name: getattr(settings, name) for name in defaults} == defaults


def test_the_store_of_backups_and_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "envFrom" not in pod_of()["containers"][0]
    options = ("backups.store=s3://bucket/logins", "backups.existingSecret=store")
    more = ("backups.env.AWS_ALLOW_HTTP=true", "backups.maxConcurrent=2")
    pod = pod_of(*(part for option in (*options, *more) for part in ("--set", option)))
    [container] = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    variables = environment_of(pod)
    assert variables["AWS_ALLOW_HTTP"] == "true"
    for name in ("BACKUP_STORE", "BACKUP_SYNC_INTERVAL", "MAX_CONCURRENT_BACKUPS"):
        monkeypatch.setenv(f"WASESSION_{name}", variables[f"WASESSION_{name}"])
    settings = Settings(session_image="session-pod:1")
    assert settings.backup_store == "s3://bucket/logins"
    assert settings.max_concurrent_backups == 2
    default = Settings.model_fields["backup_sync_interval"].default
    assert settings.backup_sync_interval == default


def test_the_variables_of_session_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = 'http://collector.observability:4318/?a=1&b="2"'
    values = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    pod = pod_of("--set-json", f"sessionTracing={json.dumps(values)}")
    name = "WASESSION_SESSION_TRACING"
    monkeypatch.setenv(name, environment_of(pod)[name])
    assert Settings(session_image="session-pod:1").session_tracing == values


@pytest.mark.parametrize("values", [{"PATH": "/"}, {"OTEL_TRACES_SAMPLER_ARG": 0.1}])
def test_other_variables_of_session_pods_are_rejected(values: dict[str, object]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        pod_of("--set-json", f"sessionTracing={json.dumps(values)}")
    with pytest.raises(ValidationError):
        Settings.model_validate({"session_image": "session-pod:1", "session_tracing": values})


@pytest.mark.parametrize("store", ["file:///tmp", "https://bucket", "s3:bucket"])
def test_what_is_no_store_is_rejected(store: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        pod_of("--set", f"backups.store={store}")


def test_it_knows_its_name_and_who_may_connect_to_session_pods() -> None:
    peer = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    variables = environment_of(
        pod_of("--set-json", f"networkPolicy.extraFrom=[{json.dumps(peer)}]")
    )
    assert variables["WASESSION_OPERATOR_NAME"] == "wasession-system/wasession-operator"
    assert variables["WASESSION_NETWORK_POLICY_ENABLED"] == "true"
    [own, extra] = json.loads(variables["WASESSION_NETWORK_POLICY_PEERS"])
    assert extra == peer
    assert own == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "wasession-system"}},
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/instance": "wasession"},
            "matchExpressions": [
                {
                    "key": "app.kubernetes.io/component",
                    "operator": "In",
                    "values": ["operator", "gateway"],
                }
            ],
        },
    }


def test_the_gateway_gets_the_key_of_its_namespace() -> None:
    assert "WASESSION_GATEWAY_KEYS" not in environment_of(pod_of())
    options = ("--set", "gateway.enabled=true", "--set", "gateway.namespace=sales")
    assert environment_of(pod_of(*options))["WASESSION_GATEWAY_KEYS"] == (
        "sales=wasession-system/wasession-gateway-session-key"
    )


def test_the_master_key_is_mounted() -> None:
    for options, name in (
        ((), "wasession-operator-master-key"),
        (("--set", "masterKey.existingSecret=mine"), "mine"),
    ):
        pod = pod_of(*options)
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "master-key"]
        assert volume["secret"]["secretName"] == name
        [mount] = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "master-key"]
        assert mount == {"name": "master-key", "mountPath": "/etc/wasession", "readOnly": True}
        file = environment_of(pod)["WASESSION_MASTER_KEY_FILE"]
        assert file == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"


def test_the_user_is_fixed_or_the_platforms() -> None:
    gateway = ("--set", "gateway.enabled=true")
    for options, expected in (((), 10001), (("--set", "runAsUser=null"), None)):
        pods = [
            pod_of(*options),
            render("templates/gateway/deployment.yaml", *gateway, *options)[0]["spec"]["template"][
                "spec"
            ],
        ]
        for pod in pods:
            context = pod["securityContext"]
            for field in ("runAsUser", "runAsGroup", "fsGroup"):
                assert context.get(field) == expected
            assert context["runAsNonRoot"] is True
        assert environment_of(pods[0])["WASESSION_RUN_AS_USER"] == str(expected or "")


# --- what every platform has its own ways of ------------------------------------------------------

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
EVERYTHING = (
    *("--set", "gateway.enabled=true,gateway.ingress.enabled=true,gateway.ingress.host=wa.example"),
    *("--set", "gateway.httpRoute.enabled=true,gateway.httpRoute.parentRefs[0].name=public"),
    *("--set", "gateway.settings.trustedProxies=1,watchNamespaces={a},gateway.namespace=a"),
)


def pods_of(*options: str) -> dict[str, Manifest]:
    """Return the specs of all pods that the chart renders, by the name of their container."""
    manifests = render(None, *EVERYTHING, *options)
    specs = [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]
    specs += [m["spec"] for m in manifests if m["kind"] == "Pod"]
    return {spec["containers"][0]["name"]: spec for spec in specs}


def images_of(*options: str) -> list[str]:
    pods = pods_of(*options)
    images = [pods[name]["containers"][0]["image"] for name in ("operator", "gateway")]
    assert pods["health"]["containers"][0]["image"] == images[0]
    return [*images, environment_of(pods["operator"])["WASESSION_SESSION_IMAGE"]]


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ("tag=1.2.3", "wasession/NAME:1.2.3"),
        (f"tag=1.2.3,digest={DIGEST}", f"wasession/NAME@{DIGEST}"),
        ("registry=registry.example:5000,tag=v1", "registry.example:5000/wasession/NAME:v1"),
        (
            "registry=registry.example,tag=v1,global.imageRegistry=mirror.example/proxy",
            "mirror.example/proxy/wasession/NAME:v1",
        ),
    ],
)
def test_images_by_registry_tag_and_digest(values: str, image: str) -> None:
    options = [
        value if value.startswith("global.") else f"{part}.{value}"
        for part in ("image", "sessionImage", "gateway.image")
        for value in values.split(",")
    ]
    names = ("operator", "gateway", "session-pod")
    expected = [image.replace("NAME", name) for name in names]
    assert images_of("--set", ",".join(options)) == expected


def test_pull_secrets_of_the_chart_and_of_its_parent() -> None:
    secrets = (
        "global.imagePullSecrets[0]=a,global.imagePullSecrets[1].name=b,"
        "imagePullSecrets[0].name=b,imagePullSecrets[1].name=c"
    )
    for pod in pods_of("--set", secrets).values():
        assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]


def test_common_labels_and_annotations_are_on_everything() -> None:
    common = ("--set", "commonLabels.team=chat,commonAnnotations.team=chat")
    special = ("podLabels", "podAnnotations", "gateway.podLabels", "gateway.podAnnotations")
    own = ("--set", ",".join(f"{value}.team=own" for value in special))
    for manifest in render(None, *EVERYTHING, *common, *own):
        for kind in ("labels", "annotations"):
            assert manifest["metadata"][kind]["team"] == "chat", manifest["metadata"]["name"]
            if manifest["kind"] == "Deployment":
                assert manifest["spec"]["template"]["metadata"][kind]["team"] == "own"
                assert "team" not in manifest["spec"]["selector"]["matchLabels"]


def test_more_variables_and_volumes() -> None:
    values: dict[str, list[Manifest]] = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/company/ca.pem"}],
        "extraVolumes": [{"name": "company", "configMap": {"name": "company-ca"}}],
        "extraVolumeMounts": [{"name": "company", "mountPath": "/etc/company", "readOnly": True}],
    }
    for component, prefix in (("operator", ""), ("gateway", "gateway.")):
        options = [
            option
            for name, value in values.items()
            for option in ("--set-json", f"{prefix}{name}={json.dumps(value)}")
        ]
        pods = pods_of(*options)
        [container] = pods.pop(component)["containers"]
        assert container["env"][-1] == values["extraEnv"][0]
        assert container["volumeMounts"][-1] == values["extraVolumeMounts"][0]
        assert pods_of(*options)[component]["volumes"][-1] == values["extraVolumes"][0]
        assert "company" not in json.dumps(pods), "another component's"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("extraEnv[0].name=WASESSION_SHARDS", "/extraEnv/0/name"),
        ("gateway.extraEnv[0].name=JWT_SECRET", "/gateway/extraEnv/0/name"),
        ("podLabels.app\\.kubernetes\\.io/name=other", "propertyName 'app.kubernetes.io/name'"),
        ("image.digest=latest", "/image/digest"),
        ("tolerations[0].efect=NoExecute", "efect"),
        ("resources.limits=1Gi", "/resources/limits"),
        ("gateway.httpRoute.hostnames[0]=a..b", "/gateway/httpRoute/hostnames/0"),
    ],
)
def test_what_would_break_its_objects_is_refused_by_name(option: str, sentence: str) -> None:
    command = [binaries.tool("helm"), "template", str(CHART)]
    command += ["--kube-version", binaries.kubernetes_version()]
    done = subprocess.run([*command, "--set", option], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_openshifts_restricted_v2_accepts_all_pods() -> None:
    """It wants no user or group but those that it sets itself, and no more than it allows.

    https://docs.openshift.com: MustRunAsRange, MustRunAs with the namespace's range, and
    ``runtime/default``.
    """
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    allowed.add("persistentVolumeClaim")
    pods = pods_of("--set", "runAsUser=null")
    assert pods.keys() == {"operator", "gateway", "health"}
    for pod in pods.values():
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert {kind for volume in pod.get("volumes", []) for kind in volume} <= {"name", *allowed}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_helm_test_asks_each_component() -> None:
    manifests = render("templates/tests/health.yaml", *EVERYTHING)
    assert {m["metadata"]["annotations"]["helm.sh/hook"] for m in manifests} == {"test"}
    services = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Service"}
    [pod] = [m for m in manifests if m["kind"] == "Pod"]
    targets = pod["spec"]["containers"][0]["args"]
    assert targets == [
        f"{name}.{SYSTEM}.svc:{spec['ports'][0]['port']}" for name, spec in services.items()
    ]
    deployments = [m for m in render(None, *EVERYTHING) if m["kind"] == "Deployment"]
    for spec, deployment in zip(services.values(), reversed(deployments), strict=True):
        template = deployment["spec"]["template"]
        assert spec["selector"] == deployment["spec"]["selector"]["matchLabels"]
        ports = template["spec"]["containers"][0]["ports"]
        assert spec["ports"][0]["port"] in [port["containerPort"] for port in ports]
    [policy] = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    [peer] = policy["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    kinds = [m["kind"] for m in render("templates/tests/health.yaml")]
    assert sorted(kinds) == ["Pod", "Service"]


# --- uninstalling ---------------------------------------------------------------------------------


async def test_an_uninstall_waits_for_the_sessions(environment: Environment) -> None:
    """Helm ends before it has changed anything, and the release stays as it was."""
    api, name = environment.api, "guarded"
    operator = f"{name}/{name}-wasession-operator"
    guard = path("configmaps", name, f"{name}-wasession-operator-uninstall")
    without = "crds.enabled=false,admissionPolicy.enabled=false,defaultClass.create=false"

    def helm(verb: str, *arguments: str) -> str:
        command = [binaries.tool("helm"), verb, name, *arguments, "--namespace", name]
        command += ["--kubeconfig", str(environment.operators.directory / "pki" / "admin.conf")]
        done = environment.network.run(
            subprocess.run, command, check=True, capture_output=True, text=True
        )
        return str(done.stdout)

    async def use(*users: str) -> None:
        """Let these operators use the class; return when the guard knows."""
        used_by = [{"operator": user, "sessions": 2, "namespaces": 1} for user in users]
        where = path("whatsappsessionclasses", None, name)
        await api.call(
            "PATCH",
            f"{where}/status",
            {"status": {"usedBy": used_by}},
            "application/merge-patch+json",
        )

        async def knows() -> bool:
            return await refuses() == (operator in users)

        await eventually(knows, patience=60)

    async def refuses() -> bool:
        try:
            await api.call("DELETE", f"{guard}?dryRun=All")
        except ApiError as error:
            return "WhatsAppSessions use the class" in str(error)
        return False

    session_class = {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSessionClass",
        "metadata": {"name": name},
        "spec": {},
    }
    await api.create("whatsappsessionclasses", session_class)
    install = (str(CHART), "--set", without)
    try:
        helm("install", *install, "--create-namespace")
        await use(operator, "another/operator")
        with pytest.raises(subprocess.CalledProcessError) as refused:
            helm("uninstall")
        assert f"2 WhatsAppSessions use the class {name} and the operator {operator}" in (
            refused.value.stderr
        )
        assert json.loads(helm("status", "--output", "json"))["info"]["status"] == "deployed"
        assert await api.call(
            "GET", f"/apis/apps/v1/namespaces/{name}/deployments/{name}-wasession-operator"
        )
        helm("upgrade", *install, "--set", "replicas=1")

        await use("another/operator")
        helm("uninstall")
        helm("install", *install)
        await use(operator)
        helm("uninstall", "--no-hooks")
        helm("install", *install)
        await use(operator)
        # What the end of a namespace does.
        await api.call("DELETE", path("configmaps", name))
        with pytest.raises(ApiError, match="404"):
            await api.call("GET", guard)
        helm("uninstall")
    finally:
        await api.delete("namespaces", None, name)
        await api.delete("whatsappsessionclasses", None, name)


# --- replicas -------------------------------------------------------------------------------------

POD_LABELS = {
    "app.kubernetes.io/name": "wasession-operator",
    "app.kubernetes.io/instance": "wasession",
    "app.kubernetes.io/component": "operator",
}


def test_old_and_new_replicas_run_side_by_side() -> None:
    [deployment] = render("templates/deployment.yaml")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }


def test_a_replica_knows_its_pod_and_how_many_shards_there_are() -> None:
    pod = pod_of("--set", "shards=4,settings.leaseDuration=20s")
    [container] = pod["containers"]
    fields = {
        variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"]
        for variable in container["env"]
        if "valueFrom" in variable
    }
    assert fields == {
        "WASESSION_POD_NAME": "metadata.name",
        "WASESSION_POD_UID": "metadata.uid",
    }
    variables = environment_of(pod)
    assert variables["WASESSION_SHARDS"] == "4"
    assert variables["WASESSION_LEASE_DURATION"] == "20s"


def test_replicas_are_spread_over_nodes() -> None:
    [constraint] = pod_of()["topologySpreadConstraints"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "matchLabelKeys": ["pod-template-hash"],
        "labelSelector": {"matchLabels": POD_LABELS},
    }
    own = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"team": "chat"}},
    }
    constraints = ("--set-json", f"topologySpreadConstraints=[{json.dumps(own)}]")
    assert pod_of(*constraints)["topologySpreadConstraints"] == [own]
    own["labelSelector"] = {}
    constraints = ("--set-json", f"topologySpreadConstraints=[{json.dumps(own)}]")
    assert pod_of(*constraints)["topologySpreadConstraints"] == [own]
    assert "topologySpreadConstraints" not in pod_of("--set-json", "topologySpreadConstraints=[]")


def test_one_replica_at_a_time_may_be_evicted() -> None:
    [budget] = render("templates/poddisruptionbudget.yaml")
    assert budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": POD_LABELS}}
    for without in ("replicas=1", "podDisruptionBudget.enabled=false"):
        kinds = [manifest["kind"] for manifest in render(None, "--set", without)]
        assert "Deployment" in kinds
        assert "PodDisruptionBudget" not in kinds, without


def test_the_metrics_of_each_replica_are_scraped() -> None:
    """A Service has the address of each pod that it selects as an endpoint."""
    service, monitor = render("templates/metrics.yaml", *MONITORED)
    assert service["spec"]["selector"] == POD_LABELS
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()


# --- roles ----------------------------------------------------------------------------------------


def rights(roles: list[Manifest]) -> Rights:
    return {
        (resource, verb)
        for manifest in roles
        for rule in manifest.get("rules", [])
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def documented() -> Iterator[tuple[str, str]]:
    """Yield the rights in the table of the chart's README."""
    section = (CHART / "README.md").read_text().partition("## What the operator may do")[2]
    resource = ""
    for row in re.findall(r"^\|(.*?)\|(.*?)\|.+\|$", section, re.MULTILINE):
        resource = ", ".join(re.findall("`(.+?)`", row[0])) or resource
        for verb in re.findall("`(.+?)`", row[1]):
            yield resource, verb


def test_each_right_has_its_reason() -> None:
    table = list(documented())
    assert len(table) == len(set(table))
    snapshots = {("volumesnapshots", "create"), ("volumesnapshots", "get")}
    in_the_cluster = rights(render("templates/rbac.yaml"))
    assert in_the_cluster == set(table) - snapshots - {("namespaces", "get")}
    assert rights(render("templates/rbac.yaml", *WATCHED)) == set(table) - snapshots
    with_store = render("templates/rbac.yaml", "--set", "backups.store=s3://a")
    assert rights(with_store) == set(table) - snapshots
    with_snapshots = render("templates/rbac.yaml", *SNAPSHOTS)
    assert rights(with_snapshots) == set(table)


@pytest.mark.parametrize("options", [(), WATCHED, (*WATCHED, *GATEWAY_OF_A)])
def test_no_right_to_read_or_delete_secrets(options: tuple[str, ...]) -> None:
    """Garbage collection deletes them, so that no fault of the operator can."""
    granted = rights(render("templates/rbac.yaml", *options))
    assert {verb for resource, verb in granted if resource == "secrets"} == {"create", "patch"}
    assert not {verb for _, verb in granted} & {"*", "deletecollection", "impersonate", "escalate"}


def test_what_may_be_done_outside_the_watched_namespaces() -> None:
    options = (*WATCHED, "--set", "rbac.nodes=false")
    always = {
        ("whatsappsessionclasses", "list"),
        ("whatsappsessionclasses", "watch"),
        ("whatsappsessionclasses/status", "patch"),
        ("leases", "list"),
        ("leases", "watch"),
    }

    def cluster_role(*more: str) -> Manifest:
        roles = render("templates/rbac.yaml", *options, *more)
        [role] = [manifest for manifest in roles if manifest["kind"] == "ClusterRole"]
        return role

    assert rights([cluster_role("--set", "rbac.deletedNamespaces=false")]) == always
    role = cluster_role()
    assert rights([role]) == always | {
        ("whatsappsessions", "list"),
        ("whatsappsessions", "watch"),
        ("whatsappsessions", "patch"),
        ("whatsappsessionbackups", "list"),
        ("whatsappsessionbackups", "watch"),
        ("whatsappsessionbackups", "patch"),
        ("namespaces", "get"),
    }
    [namespaces] = [rule for rule in role["rules"] if rule["resources"] == ["namespaces"]]
    assert namespaces["resourceNames"] == ["a", "b"]
    with_snapshots = cluster_role("--set", "rbac.deletedNamespaces=false", *SNAPSHOTS)
    assert rights([with_snapshots]) == always | {("namespaces", "get")}
    assert with_snapshots["rules"][-1]["resourceNames"] == ["kube-system"]


@pytest.mark.parametrize("options", [(), WATCHED])
def test_leases_are_written_in_the_releases_namespace_alone(options: tuple[str, ...]) -> None:
    roles = render("templates/rbac.yaml", *options)
    writers = [role for role in roles if ("leases", "patch") in rights([role])]
    assert [(role["kind"], role["metadata"]["namespace"]) for role in writers] == [("Role", SYSTEM)]
    assert {resource for resource, _ in rights(writers)} == {"leases"}


def test_what_the_clusters_own_roles_get() -> None:
    granted = {
        label.rpartition("-")[2]: rights([role])
        for role in render("templates/aggregate.yaml")
        for label in role["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/aggregate-to-")
    }
    assert granted.keys() == {"view", "edit", "admin"}
    assert granted["admin"] == {("whatsappsessions", "assign-owner")}
    assert {verb for _, verb in granted["view"]} == {"get", "list", "watch"}
    assert ("whatsappsessionclasses", "get") in granted["view"]
    assert {resource for resource, _ in granted["edit"]} == {
        "whatsappsessions",
        "whatsappsessionbackups",
    }
    assert "assign-owner" not in {verb for _, verb in granted["edit"]}


async def test_the_gateways_key_is_the_only_secret_outside_the_watched_namespaces(
    environment: Environment,
) -> None:
    api: Api = environment.api
    options = (*WATCHED, *GATEWAY_OF_A)
    manifests = [
        manifest
        for manifest in render("templates/rbac.yaml", *options, release="key")
        if manifest["metadata"].get("namespace") == SYSTEM
    ]
    for manifest in manifests:
        await api.create(f"{manifest['kind'].lower()}s", manifest)
    [name] = [
        name
        for manifest in manifests
        for rule in manifest.get("rules", [])
        for name in rule.get("resourceNames", [])
    ]
    operator = f"system:serviceaccount:{SYSTEM}:key-wasession-operator"

    async def apply(name: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        where = f"{path('secrets', SYSTEM, name)}?fieldManager=operator"
        await api.call("PATCH", where, secret, "application/apply-patch+yaml", operator)

    try:
        await apply(name)
        await apply(name)
        with pytest.raises(ApiError, match="403"):
            await apply("another")
        with pytest.raises(ApiError, match="403"):
            await api.call("GET", path("secrets", SYSTEM, name), user=operator)
    finally:
        for manifest in manifests:
            plural = f"{manifest['kind'].lower()}s"
            await api.delete(plural, SYSTEM, manifest["metadata"]["name"])


# --- what belongs to the cluster ------------------------------------------------------------------


def test_the_default_class() -> None:
    [default] = render("templates/defaultclass.yaml")
    assert default["metadata"]["name"] == "default"
    annotations = default["metadata"]["annotations"]
    assert annotations["wasession.dev/is-default-class"] == "true"
    assert annotations["helm.sh/hook"] == "post-install,post-upgrade"
    known = ("--api-versions", "wasession.dev/v1alpha1/WhatsAppSessionClass")
    [default] = render(
        "templates/defaultclass.yaml", *known, "--set", "defaultClass.isDefault=false"
    )
    assert default["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


async def test_the_default_class_outlives_revisions_and_follows_the_values(
    environment: Environment,
) -> None:
    """The first revision has no class in its manifest: its hook has created one."""
    api, name = environment.api, "revised"
    without = "crds.enabled=false,admissionPolicy.enabled=false,rbac.create=false"
    values = ("--set", f"{without},defaultClass.name={name},defaultClass.isDefault=false")

    def helm(verb: str, *arguments: str) -> None:
        command = [binaries.tool("helm"), verb, name, *arguments, "--namespace", name]
        command += ["--kubeconfig", str(environment.operators.directory / "pki" / "admin.conf")]
        environment.network.run(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)

    def chart(storage: str) -> tuple[str, ...]:
        return (str(CHART), *values, "--set", f"defaultClass.spec.limits.storage={storage}")

    async def allowed() -> str:
        stored = await api.get("whatsappsessionclasses", None, name)
        result: str = stored["spec"]["limits"]["storage"]
        return result

    helm("install", *chart("1Gi"), "--set", "defaultClass.create=false", "--create-namespace")
    [hook] = render("templates/defaultclass.yaml", *chart("1Gi")[1:], release=name)
    hook["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = name
    await api.create("whatsappsessionclasses", hook)
    try:
        helm("upgrade", *chart("2Gi"))
        assert await allowed() == "2Gi"
        helm("rollback", "1")
        assert await allowed() == "2Gi"
        helm("upgrade", *chart("2Gi"))
        helm("upgrade", *chart("3Gi"))
        assert await allowed() == "3Gi"
        helm("uninstall")
        assert await allowed() == "3Gi"
        helm("install", *chart("4Gi"))
        assert await allowed() == "4Gi"
        helm("uninstall")
    finally:
        await api.delete("namespaces", None, name)
    await api.delete("whatsappsessionclasses", None, name)


@pytest.mark.parametrize(
    ("options", "checks"),
    [
        ((), ["class", "owner"]),
        (("--set", "admissionPolicy.checkOwner=false"), ["class"]),
    ],
)
def test_the_admission_policies(options: tuple[str, ...], checks: list[str]) -> None:
    manifests = render("templates/admission-policy.yaml", *options)
    names = [f"wasession-system-wasession-operator-{check}" for check in checks]
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        assert names == [m["metadata"]["name"] for m in manifests if m["kind"] == kind]
    bindings = [m["spec"] for m in manifests if m["kind"].endswith("Binding")]
    assert [binding["policyName"] for binding in bindings] == names
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings)
    assert bindings[0]["paramRef"] == {"selector": {}, "parameterNotFoundAction": "Allow"}
