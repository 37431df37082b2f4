"""The cluster's certificate authority, certificates and kubeconfigs."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = datetime.timedelta(days=3650)


class Pki:
    """Files ``NAME.crt``, ``NAME.key`` and ``NAME.conf`` in one directory, created if missing."""

    def __init__(self, directory: Path, server: str) -> None:
        self.directory = directory
        self.server = server
        directory.mkdir(parents=True, exist_ok=True)
        if not self.certificate("ca").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            self._write("ca", key, _certificate("wasession-ca", None, key, None, key, ()))
        self._ca_key = serialization.load_pem_private_key(self.key("ca").read_bytes(), None)
        self._ca = x509.load_pem_x509_certificate(self.certificate("ca").read_bytes())

    def certificate(self, name: str) -> Path:
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        return self.directory / f"{name}.conf"

    def issue(
        self, name: str, common_name: str, organization: str | None = None, *hosts: str
    ) -> None:
        """Issue a certificate for client and server use, and a kubeconfig that uses it."""
        if self.certificate(name).exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        assert isinstance(self._ca_key, ec.EllipticCurvePrivateKey)
        self._write(
            name, key, _certificate(common_name, organization, key, self._ca, self._ca_key, hosts)
        )
        self.kubeconfig(name).write_text(json.dumps(self._kubeconfig(name)))
        self.kubeconfig(name).chmod(0o600)

    def signing_key(self, name: str) -> None:
        """Generate a bare key pair: ``NAME.key`` and ``NAME.pub``."""
        if self.key(name).exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        self._write_key(name, key)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.directory / f"{name}.pub").write_bytes(public)

    def _kubeconfig(self, name: str) -> dict[str, object]:
        def embedded(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        user = {
            "client-certificate-data": embedded(self.certificate(name)),
            "client-key-data": embedded(self.key(name)),
        }
        cluster = {
            "server": self.server,
            "certificate-authority-data": embedded(self.certificate("ca")),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "wasession",
            "clusters": [{"name": "wasession", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "wasession", "context": {"cluster": "wasession", "user": name}}],
        }

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        self._write_key(name, key)
        self.certificate(name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _write_key(self, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        self.key(name).touch(mode=0o600)
        self.key(name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _certificate(
    common_name: str,
    organization: str | None,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate | None,
    ca_key: ec.EllipticCurvePrivateKey,
    hosts: tuple[str, ...],
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
    )
    if ca is None:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False
        )
    return builder.sign(ca_key, hashes.SHA256())


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
