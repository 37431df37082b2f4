"""A login outlives the loss of its namespace, of its cluster and of the cluster's memory.

WhatsApp and the bucket are outside the cluster, as they are in life. One phone is linked once; then
each drill takes the session away in another way and brings it back as docs/backup.md says. `make
login-drills` does so many times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from support.cluster import Cluster
from support.cluster.machine import HOST_ADDRESS
from support.cluster.waiting import wait_for
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT
from support.s3 import BUCKET, S3Server
from support.standin import Phone
from support.standin.chat import Logins
from support.testbed import ROOT, Session, Testbed, plugin_path

Manifest = dict[str, Any]
COUNT = int(os.environ.get("LOGIN_DRILLS", "0"))  # 0: those once that leave the cluster alone
SEED = int(os.environ.get("LOGIN_DRILLS_SEED", time.time_ns() if COUNT else 0))
DOCUMENT = ROOT / "docs" / "backup.md"
DELETED = "**A namespace was deleted.**"
STORE = f"s3://{BUCKET}/drills"
NAME, ME, FRIEND = "sales-eu", "15557770004", "15550001111"
PATIENCE = 180.0  # seconds
# What Velero does not restore of an object's metadata.
OF_ONE_CLUSTER = {
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "managedFields", "ownerReferences", "generateName",
}  # fmt: skip
# The AWS CLI's `aws s3 cp` between two objects, by the S3 API.
AWS = f"""#!{sys.executable}
import sys, obstore
from obstore.store import from_url
source, target = (url.split("/", 3) for url in sys.argv[3:])
store = from_url("/".join(source[:3]))
obstore.put(store, target[3], obstore.get(store, source[3]).bytes())
"""


# --- what no disaster of the cluster reaches ------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A bucket outside the cluster."""
    server = S3Server(tmp_path_factory.mktemp("s3"), HOST_ADDRESS)
    asyncio.run(server.start())
    yield server
    server.kill()


@pytest.fixture(scope="module")
def whatsapp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """WhatsApp and its phones, outside the cluster; yields the URL."""
    port, tests = unused_port(), str(ROOT / "tests")
    command = [*ENDS_WITH_PARENT, sys.executable, "-m", "support.standin", "--host", "0.0.0.0"]
    command += ["--port", str(port), "--state", str(tmp_path_factory.mktemp("standin") / "state")]
    environment = os.environ | {"PYTHONPATH": tests, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"listening" in process.stdout.readline()
        yield f"http://{HOST_ADDRESS}:{port}"
        process.kill()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the person who restores keeps identity.txt, and has an AWS CLI."""
    directory = tmp_path_factory.mktemp("person")
    (directory / "identity.txt").write_text(str(pyrage.x25519.Identity.generate()))
    (directory / "aws").write_text(AWS)
    (directory / "aws").chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def values(s3: S3Server, whatsapp: str, keys: Path) -> Path:
    """Values of the chart: the default class opens this WhatsApp, and makes backups."""
    identity = pyrage.x25519.Identity.from_str((keys / "identity.txt").read_text())
    outside = {"to": [{"ipBlock": {"cidr": f"{HOST_ADDRESS}/32"}}]}
    default_class = {
        "whatsappURL": whatsapp,
        "extraArgs": [f"--unsafely-treat-insecure-origin-as-secure={whatsapp}"],
        "egress": [outside],
        "backupPolicy": {"recipients": [str(identity.to_public())]},
    }
    backups = {"store": STORE, "syncInterval": "5s", "env": s3.environment}
    path = keys / "values.json"
    path.write_text(json.dumps({"backups": backups, "defaultClass": {"spec": default_class}}))
    return path


@pytest.fixture(scope="module")
def installed(bed: Testbed, embedded_cluster: Cluster, values: Path) -> Iterator[None]:
    bed.install_operator("--values", str(values))
    yield
    bed.install_operator()
    bed.install_standin()  # that of the other tests: it was lost with the cluster


class Login:
    """One phone's login, in the session that has it by now."""

    def __init__(
        self, bed: Testbed, cluster: Cluster, s3: S3Server, whatsapp: str, keys: Path
    ) -> None:
        self.bed, self.cluster, self.keys, self.s3 = bed, cluster, keys, s3
        self.phone = Phone(whatsapp.replace(HOST_ADDRESS, "127.0.0.1"))  # also without a cluster
        self.session = bed.session(NAME, "sales")
        self.drills = 0
        self.recovery = 0.0  # seconds of the latest one

    @property
    def namespace(self) -> str:
        return self.session.namespace

    def link(self) -> None:
        """Scan the only QR of all."""
        self.cluster.kubectl("create", "namespace", self.namespace)
        self.session.create("WhatsAppSession", NAME, clientId=NAME, owner="user-42")
        self.session.wait_phase("Authenticating")
        asyncio.run(self.phone.scan(self.session.pairing_code(), ME))
        self.session.wait_ready()

    @contextlib.contextmanager
    def recovering(self) -> Iterator[None]:
        """Measure a recovery, from its first command until the session is Ready."""
        began = time.monotonic()
        yield
        self.session.wait_ready(PATIENCE)
        self.recovery = time.monotonic() - began

    def back_up(self) -> str:
        """Make a backup; return its name."""
        name = f"{NAME}-drill-{self.drills}"
        self.session.create("WhatsAppSessionBackup", name, sessionName=NAME)
        self.until_completed(name)
        return name

    def until_completed(self, name: str) -> None:
        """Wait until a backup is Completed; one that only the store knows has to appear first."""
        kubectl = self.session.kubectl
        kubectl("wait", "--for=create", f"wasb/{name}", "--timeout=60s")
        completed = "--for=jsonpath={.status.phase}=Completed"
        kubectl("wait", completed, f"wasb/{name}", "--timeout=90s")

    def delete_namespace(self) -> None:
        self.cluster.kubectl("delete", "namespace", self.namespace, "--timeout=120s")

    def create_identity(self) -> None:
        secret = ("create", "secret", "generic", "wasession-backup-identity")
        self.session.kubectl(*secret, f"--from-file=identity={self.keys / 'identity.txt'}")

    def shell(self, commands: str) -> None:
        """Do what the documentation says, as the person who restores."""
        path = f"{self.keys}{os.pathsep}{plugin_path()}"
        environment = os.environ | self.s3.environment | {"PATH": path}
        environment["KUBECONFIG"] = str(self.cluster.kubeconfig_path)
        command = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(
            command, env=environment, cwd=self.keys, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"

    def logins(self) -> Logins:
        return asyncio.run(self.phone.logins())

    def is_online(self) -> bool:
        return any(device.online for device in asyncio.run(self.phone.devices(ME)))

    def says(self, text: str) -> bool:
        """Let the session send a text; return whether WhatsApp has delivered it."""
        self.session.send(FRIEND, text)
        return any(message.text == text for message in asyncio.run(self.phone.messages()))


@pytest.fixture(scope="module")
def login(
    bed: Testbed,
    embedded_cluster: Cluster,
    installed: None,
    s3: S3Server,
    whatsapp: str,
    keys: Path,
) -> Iterator[Login]:
    login = Login(bed, embedded_cluster, s3, whatsapp, keys)
    login.link()
    yield login
    login.delete_namespace()


# --- the drills -----------------------------------------------------------------------------------


def commands_below(heading: str, backup: str, changes: dict[str, str]) -> str:
    """Return the commands below a heading of docs/backup.md, with other names."""
    text = DOCUMENT.read_text().split(f"\n{heading}")[1]
    commands = text.split("```sh\n")[1].split("```")[0]
    # Somebody watches until they are back.
    until_back = (
        f"kubectl -n sales wait --for=create wasb/{backup} --timeout=60s\n"
        "kubectl -n sales wait --for=jsonpath='{.status.phase}'=Completed "
        f"wasb/{backup} --timeout=60s"
    )
    commands = re.sub("kubectl -n sales get wasb -w.*", lambda _: until_back, commands)
    names = re.compile("|".join(rf"\b{re.escape(name)}(?![\w-])" for name in changes))
    return names.sub(lambda found: changes[found[0]], commands)


def namespace_is_deleted(login: Login) -> None:
    """Nothing is left but the bucket; the commands of the documentation bring it back."""
    backup = login.back_up()
    login.delete_namespace()
    with login.recovering():
        login.shell(commands_below(DELETED, backup, {"sales": login.namespace}))


def namespace_comes_back_from_git(login: Login) -> None:
    """Everything is applied at once, before the operator has found the backup in the bucket."""
    backup = login.back_up()
    login.delete_namespace()
    bootstrap = {"fromBackup": {"name": backup}}
    spec = {"clientId": NAME, "owner": "user-42", "bootstrap": bootstrap}
    with login.recovering():
        login.cluster.kubectl("create", "namespace", login.namespace)
        login.session.create("WhatsAppSession", NAME, **spec)
        login.create_identity()
    login.session.kubectl("delete", "secret", "wasession-backup-identity")


def cluster_is_rebuilt(login: Login) -> None:
    """Another cluster, with an empty etcd and no volumes, gets the chart and the bucket."""
    backup = login.back_up()
    login.cluster.erase()
    wait_for("WhatsApp to notice the power cut", lambda: not login.is_online(), 120)
    login.cluster.start()
    login.bed.install_operator("--values", str(login.keys / "values.json"))
    commands = commands_below(DELETED, backup, {"sales": login.namespace})
    with login.recovering():
        login.shell(commands.replace("--no-wait", "--no-wait --fenced"))


def velero_restores(login: Login) -> None:
    """All objects come back with new UIDs and without a status, and the volume with its data."""
    kubectl = login.session.kubectl
    claim = json.loads(kubectl("get", "pvc", login.session.status["pvcName"], "-o", "json"))
    volume = claim["spec"]["volumeName"]
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    kubectl("patch", "pv", volume, "-p", json.dumps(patch))
    kinds = ("secret", "pod", "wasession", "wasb")
    saved = [json.loads(kubectl("get", "pv", volume, "-o", "json")), claim]
    for kind in kinds:
        saved += json.loads(kubectl("get", kind, "-o", "json"))["items"]
    login.delete_namespace()
    kubectl("delete", "pv", volume, "--timeout=60s")
    with login.recovering():
        login.cluster.kubectl("create", "namespace", login.namespace)
        for obj in map(as_velero_restores, saved):
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(obj, file)
                file.flush()
                try:
                    kubectl("create", "-f", file.name)
                except subprocess.CalledProcessError as error:
                    # The operator was quicker with a backup; Velero leaves that alone as well.
                    if "AlreadyExists" not in error.stderr:
                        raise


def as_velero_restores(saved: Manifest) -> Manifest:
    """Return an object as Velero creates it again in an empty namespace."""
    metadata = {key: saved["metadata"][key] for key in saved["metadata"].keys() - OF_ONE_CLUSTER}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {
        key: value for key, value in annotations.items() if not key.startswith("pv.kubernetes.io/")
    }
    metadata["labels"] = (metadata.get("labels") or {}) | {"velero.io/restore-name": "drill"}
    obj = {key: value for key, value in saved.items() if key != "status"} | {"metadata": metadata}
    if obj["kind"] == "PersistentVolume":
        reference = obj["spec"]["claimRef"]
        for key in ("uid", "resourceVersion"):
            reference.pop(key, None)
    if obj["kind"] == "Pod":
        for key in ("nodeName", "priority"):
            obj["spec"].pop(key, None)
    return obj


def namespace_is_changed(login: Login) -> None:
    """The login moves to another namespace while its source still runs."""
    backup, source = login.back_up(), login.session
    there = {"sales": "support", "support": "sales"}[source.namespace]
    archive = json.loads(source.kubectl("get", "wasb", backup, "-o", "json"))["status"]["key"]
    name = archive.rsplit("/", 1)[1]
    login.session = login.bed.session(NAME, there)
    with contextlib.suppress(subprocess.CalledProcessError):  # it is the second move
        login.cluster.kubectl("create", "namespace", there)
    login.create_identity()
    changes = {
        "sales": source.namespace,
        "support": there,
        "s3://bucket/wasession": STORE,
        "20260105T030000Z-1a2b3c4d.tar.age": name,
        "sales-eu-20260105-030000": backup,
    }
    login.shell(commands_below("### Into another namespace", backup, changes))
    login.until_completed(backup)
    login.shell(f"kubectl wasession -n {there} restore {backup} --as {NAME} --no-wait")
    blocked = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}=BackupSourceRunning"
    login.session.wait(blocked)
    assert source.status["phase"] == "Ready"
    with login.recovering():
        login.shell(f"kubectl wasession -n {source.namespace} suspend {NAME}")
    login.session.kubectl("delete", "secret", "wasession-backup-identity")
    login.cluster.kubectl("delete", "namespace", source.namespace, "--timeout=120s")


def etcd_goes_back(login: Login) -> None:
    """The cluster forgets the latest pod, which still runs; the volume has forgotten nothing."""
    session = login.session

    def is_back() -> bool:
        pod, status = session.pod(), session.status
        is_known = status["podUID"] == pod["metadata"]["uid"] and containers(session) != forgotten
        is_ready = all(container["ready"] for container in pod["status"]["containerStatuses"])
        return is_known and is_ready and bool(status["phase"] == "Ready")

    with tempfile.TemporaryDirectory() as directory:
        login.cluster.copy_etcd(Path(directory, "etcd"))
        replace_pod(session)
        assert login.says(f"forgotten {login.drills}")
        forgotten = containers(session)
        with login.recovering():
            login.cluster.restore_etcd(Path(directory, "etcd"))
            wait_for("another container to be Ready", is_back, PATIENCE)
    replace_pod(session)  # the operator has noticed that the API server went back


def replace_pod(session: Session) -> None:
    pod = session.pod()["metadata"]
    session.kubectl("delete", "pod", pod["name"], "--timeout=60s")
    wait_for("another pod", lambda: session.pod()["metadata"]["uid"] != pod["uid"], PATIENCE)
    session.wait(f"jsonpath={{.status.podUID}}={session.pod()['metadata']['uid']}", PATIENCE)
    session.wait_ready(PATIENCE)


def containers(session: Session) -> list[str]:
    return [status["containerID"] for status in session.pod()["status"]["containerStatuses"]]


KINDS: dict[str, Callable[[Login], None]] = {
    "namespace deleted": namespace_is_deleted,
    "namespace from Git": namespace_comes_back_from_git,
    "Velero": velero_restores,
    "moved": namespace_is_changed,
    "etcd restored": etcd_goes_back,
    "cluster rebuilt": cluster_is_rebuilt,
}
SAMPLE = [kind for kind in KINDS if kind not in ("etcd restored", "cluster rebuilt")]
DRILLS = random.Random(SEED).choices(list(KINDS), k=COUNT) if COUNT else SAMPLE  # noqa: S311


@pytest.mark.parametrize(("number", "kind"), [*enumerate(DRILLS, 1)], ids=str)
def test_a_login_comes_back_without_a_qr(login: Login, number: int, kind: str) -> None:
    """It has the same account, and never ran beside a copy of itself."""
    print(f"LOGIN_DRILLS_SEED={SEED}")
    before, began = login.logins(), time.monotonic()
    login.drills = number
    KINDS[kind](login)
    status = login.session.status
    assert status["sessionValid"] is True
    assert status["account"]["id"] == f"{ME}@c.us"
    assert login.says(f"after drill {number}")
    assert login.logins() == before, "neither QRs nor pairing codes, and no two pages at once"
    total = time.monotonic() - began
    print(f"{number} {kind}: Ready after {login.recovery:.1f} s, {total:.1f} s in all")
