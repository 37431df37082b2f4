"""What a release says about itself: versions, notes, bills of materials, provenance, signatures."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.testbed import ROOT

from release import oci, provenance, sbom, signature
from release.notes import notes
from release.versions import versions, why_not

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
VERSION = next(iter(versions(ROOT).values()))

# --- versions -------------------------------------------------------------------------------------


def test_everything_has_the_same_version() -> None:
    found = versions(ROOT)
    assert len(found) > 10
    assert set(found.values()) == {VERSION}
    assert why_not(VERSION, ROOT) is None


@pytest.mark.parametrize("version", ["1", "v1.2.3", "1.2.3+build", "01.2.3", "1.2.3-", "", "1.2.x"])
def test_what_is_no_version(version: str) -> None:
    assert "not a version" in (why_not(version, ROOT) or "")


def test_a_version_that_the_repository_does_not_have(tmp_path: Path) -> None:
    for file in (*ROOT.glob("*/pyproject.toml"), ROOT / "pyproject.toml"):
        (tmp_path / file.parent.relative_to(ROOT)).mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
    chart = tmp_path / "charts/wasession-operator/Chart.yaml"
    chart.parent.mkdir(parents=True)
    text = (ROOT / chart.relative_to(tmp_path)).read_text()
    chart.write_text(text.replace(f"appVersion: {VERSION}", "appVersion: 9.9.9"))
    reason = why_not(VERSION, tmp_path)
    assert reason is not None
    assert "9.9.9  charts/wasession-operator/Chart.yaml: appVersion" in reason
    assert "pyproject" not in reason


# --- notes ----------------------------------------------------------------------------------------


def test_notes_have_what_users_notice() -> None:
    messages = [
        "feat(chart): digests of images\n\nBecause of them.",
        "fix: a wake-up is done",
        "test(operator): a row",
        "feat(api)!: phases have other names",
        "refactor: one module\n\nBREAKING CHANGE: scripts call another one.",
        "Merge branch 'x'",
        "perf(demo): images beside programs",
    ]
    assert notes("1.2.3", messages) == (
        "# wasession 1.2.3\n\n"
        "## Changed\n\n- api: phases have other names\n- scripts call another one.\n\n"
        "## Added\n\n- chart: digests of images\n- api: phases have other names\n\n"
        "## Fixed\n\n- a wake-up is done\n\n"
        "## Faster\n\n- demo: images beside programs\n"
    )


def test_notes_of_nothing() -> None:
    assert notes("1.2.3", ["chore: nothing"]) == "# wasession 1.2.3\n"


# --- bills of materials ---------------------------------------------------------------------------

STATUS = """Package: libc6
Status: install ok installed
Architecture: arm64
Version: 2.36-9+deb12u10
Description: GNU C Library: Shared libraries
 Status: deinstall

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1:2.0
"""
NODE = {
    "packages": {
        "": {"name": "bridge"},
        "node_modules/@wppconnect/wa-js": {"version": "4.1.0"},
        "node_modules/a/node_modules/b": {"version": "2.0.0"},
        "node_modules/esbuild": {"version": "1.0.0", "dev": True},
    }
}


def test_each_kind_of_package_is_found() -> None:
    lock = (
        "aiohttp==3.14.0 \\\n    --hash=sha256:00\npyyaml==6.0 ; sys_platform == 'linux'\n# a==1\n"
    )
    purls = [
        str(package.purl)
        for package in (
            *sbom.python_packages(lock),
            *sbom.debian_packages(STATUS, "arm64"),
            *sbom.node_packages(NODE),
        )
    ]
    assert purls == [
        "pkg:pypi/aiohttp@3.14.0",
        "pkg:pypi/pyyaml@6.0",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=arm64&distro=bookworm",
        "pkg:npm/%40wppconnect/wa-js@4.1.0",
        "pkg:npm/b@2.0.0",
    ]


@pytest.mark.parametrize("target", ["operator", "session-pod", "gateway"])
def test_a_document_is_valid(target: str) -> None:
    packages = list(sbom.python_packages((ROOT / target / "requirements.lock").read_text()))
    assert len(packages) > 10
    text = sbom.document(f"wasession/{target}", "1.2.3", "ab" * 32, packages, AT)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert document["metadata"]["timestamp"] == "2026-03-04T05:06:07+00:00"
    assert len(document["components"]) == len(packages)
    again = sbom.document(f"wasession/{target}", "1.2.3", "ab" * 32, packages, AT)
    assert again == text, "the same image has the same document"


def test_a_file_of_an_image_is_that_of_its_last_layer(tmp_path: Path) -> None:
    layers = [{"etc/a": "old", "etc/b": "first"}, {"./etc/a": "new"}]
    archive = write_archive(tmp_path / "image.tar", layers)
    assert oci.read_file(archive, "etc/a") == "new"
    assert oci.read_file(archive, "etc/b") == "first"
    assert oci.read_file(archive, "etc/c") is None


def write_archive(path: Path, layers: list[dict[str, str]]) -> Path:
    blobs: dict[str, bytes] = {}

    def put(content: bytes) -> dict[str, str]:
        digest = f"sha256:{len(blobs):064}"
        blobs[f"blobs/{digest.replace(':', '/')}"] = content
        return {"digest": digest}

    found = [put(tar({name: text.encode() for name, text in files.items()})) for files in layers]
    manifest = put(json.dumps({"layers": found}).encode())
    index = put(json.dumps({"manifests": [manifest]}).encode())
    path.write_bytes(tar({**blobs, "index.json": json.dumps({"manifests": [index]}).encode()}))
    return path


def tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


# --- provenance, signatures -----------------------------------------------------------------------


def test_the_provenance_names_all_files_and_their_source() -> None:
    digests = {"b.tar": "0" * 64, "a.tgz": "1" * 64}
    text = provenance.statement("1.2.3", digests, "c0ffee", "https://a.example", "https://ci", AT)
    statement: dict[str, Any] = json.loads(text)
    assert [one["name"] for one in statement["subject"]] == ["a.tgz", "b.tar"]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"uri": "git+https://a.example", "digest": {"gitCommit": "c0ffee"}}
    ]


def test_openssl_and_sha256sum_accept_what_is_signed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content")
    sums = signature.checksums({"a.txt": signature.sha256(tmp_path / "a.txt")})
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "SHA256SUMS").write_text(sums)
    (tmp_path / "SHA256SUMS.sig").write_text(signature.sign(key, sums))
    (tmp_path / "cosign.pub").write_text(signature.public_key(key))
    check = (
        "base64 -d SHA256SUMS.sig > signature && "
        "openssl dgst -sha256 -verify cosign.pub -signature signature SHA256SUMS"
    )
    commands = ["sha256sum --check SHA256SUMS", check]
    results = [
        subprocess.run(["sh", "-c", one], cwd=tmp_path, capture_output=True, check=False).returncode
        for one in commands
    ]
    assert results == [0, 0]
    (tmp_path / "SHA256SUMS").write_text(sums + "\n")
    done = subprocess.run(["sh", "-c", check], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    found: bytes = key.private_bytes(serialization.Encoding.PEM, form, encryption)
    return found


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (None, None),
        (b"no key", None),
        (pem(ed25519.Ed25519PrivateKey.generate()), None),
        (pem(ec.generate_private_key(ec.SECP384R1())), None),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"right"), "wrong"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"right"), None),
    ],
    ids=["missing", "text", "ed25519", "p384", "wrong password", "no password"],
)
def test_a_key_that_cannot_be_used(
    content: bytes | None, password: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "cosign.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(signature.KeyNotUsable, match=r"cosign\.key"):
        signature.load_key(path, password)


def test_a_key_with_a_password(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "cosign.key"
    path.write_bytes(pem(key, b"right"))
    assert signature.public_key(signature.load_key(path, "right")) == signature.public_key(key)
