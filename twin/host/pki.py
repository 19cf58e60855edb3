"""One certificate authority per twin: API server, nodes, kubeconfigs and every TLS server of the twin hang off it.

Keys are files of mode 0600 below ``<instance>/pki``; what exists is kept, so ``up`` can be repeated. Certificates live
as long as a twin plausibly does (one year), and none leaves the machine.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twin.config import PartStatus, Twin
from twin.errors import TwinError

VALIDITY = dt.timedelta(days=365)
_CLOCK_SKEW = dt.timedelta(minutes=5)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyPair(NamedTuple):
    """A certificate (with its issuer's behind it, as servers present it) and its key, both PEM."""

    certificate: bytes
    key: bytes


class KeyPairFiles(NamedTuple):
    """Paths of a certificate and its key."""

    certificate: Path
    key: Path


def ca_file(twin: Twin) -> Path:
    """The authority's certificate, for clients to trust."""
    return twin.pki / "ca.crt"


def ca_key_file(twin: Twin) -> Path:
    """The authority's key (kube-controller-manager signs certificate requests with it)."""
    return twin.pki / "ca.key"


def service_account_key_file(twin: Twin) -> Path:
    """The key that signs service account tokens."""
    return twin.pki / "service-accounts.key"


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(common_name: str, organisation: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(twin: Twin) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(f"ShopCat twin {twin.name}")
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(ca_key_file(twin), _pem(key), 0o600)
    _write(ca_file(twin), certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _authority(twin: Twin) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(ca_file(twin).read_bytes())
        key = serialization.load_pem_private_key(ca_key_file(twin).read_bytes(), None)
    except OSError as error:
        message = f"twin {twin.name!r} has no certificate authority in {twin.pki} yet; `make up` makes it"
        raise TwinError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        message = (
            f"{ca_key_file(twin)} is not the elliptic-curve key the twin wrote; `make down` and `make up` renew it"
        )
        raise TwinError(message)
    return certificate, key


def _issue(
    twin: Twin,
    subject: x509.Name,
    usages: Sequence[x509.ObjectIdentifier],
    *,
    names: Sequence[str] = (),
    ips: Sequence[str] = (),
) -> KeyPair:
    authority, authority_key = _authority(twin)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(subject, authority.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives.extend(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM) + authority.public_bytes(serialization.Encoding.PEM),
        _pem(key),
    )


def issue_server_certificate(twin: Twin, names: Sequence[str], ips: Sequence[str] = ()) -> KeyPair:
    """A new TLS server certificate for these DNS names (wildcards allowed) and addresses, and its key, as PEM.

    Raises:
        TwinError: the twin's authority was not made yet.
    """
    if not names and not ips:
        message = "a server certificate needs at least one name or address; none was given"
        raise TwinError(message)
    # A common name is limited to 64 characters; clients read the alternative names only.
    subject = _subject((names[0] if names else ips[0])[:64])
    return _issue(twin, subject, [ExtendedKeyUsageOID.SERVER_AUTH], names=names, ips=ips)


def server_files(twin: Twin, name: str, names: Sequence[str], ips: Sequence[str] = ()) -> KeyPairFiles:
    """``<pki>/<name>.crt`` and ``.key`` for a server, issued unless they are there."""
    files = KeyPairFiles(twin.pki / f"{name}.crt", twin.pki / f"{name}.key")
    if not (files.certificate.exists() and files.key.exists()):
        pair = issue_server_certificate(twin, names, ips)
        _write(files.key, pair.key, 0o600)
        _write(files.certificate, pair.certificate, 0o644)
    return files


def client_files(twin: Twin, name: str, common_name: str, organisation: str | None = None) -> KeyPairFiles:
    """``<pki>/<name>.crt`` and ``.key`` for a client (user and group to Kubernetes), issued unless they are there."""
    files = KeyPairFiles(twin.pki / f"{name}.crt", twin.pki / f"{name}.key")
    if not (files.certificate.exists() and files.key.exists()):
        subject = _subject(common_name, organisation)
        pair = _issue(twin, subject, [ExtendedKeyUsageOID.CLIENT_AUTH])
        _write(files.key, pair.key, 0o600)
        _write(files.certificate, pair.certificate, 0o644)
    return files


def kubeconfig(twin: Twin, name: str, common_name: str, organisation: str | None = None) -> Path:
    """``<pki>/<name>.kubeconfig``: the twin's API server as that user and group, nothing referred to by path."""
    path = twin.pki / f"{name}.kubeconfig"
    if not path.exists():
        files = client_files(twin, name, common_name, organisation)
        _write(path, _kubeconfig_text(twin, common_name, files), 0o600)
    return path


def _kubeconfig_text(twin: Twin, user: str, files: KeyPairFiles) -> bytes:
    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    context = f"twin-{twin.name}"
    cluster = {"server": twin.api_server, "certificate-authority-data": inline(ca_file(twin))}
    credentials = {"client-certificate-data": inline(files.certificate), "client-key-data": inline(files.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def up(twin: Twin) -> None:
    """The authority, the service account key and the administrator's kubeconfig."""
    twin.pki.mkdir(parents=True, exist_ok=True)
    if not (ca_file(twin).exists() and ca_key_file(twin).exists()):
        # Whatever hangs off an authority that is gone is worthless.
        shutil.rmtree(twin.pki)
        twin.kubeconfig.unlink(missing_ok=True)
        _make_authority(twin)
    if not service_account_key_file(twin).exists():
        # RSA, as EKS signs its tokens (RS256).
        _write(service_account_key_file(twin), _pem(rsa.generate_private_key(65537, 2048)), 0o600)
    if not twin.kubeconfig.exists():
        files = client_files(twin, "admin", "twin-admin", "system:masters")
        _write(twin.kubeconfig, _kubeconfig_text(twin, "twin-admin", files), 0o600)


def down(twin: Twin) -> None:
    """Certificates, keys and the administrator's kubeconfig are deleted."""
    twin.kubeconfig.unlink(missing_ok=True)
    if twin.pki.exists():
        shutil.rmtree(twin.pki)


def status(twin: Twin) -> list[PartStatus]:
    """Report whether the certificate authority exists and is still valid."""
    if not ca_file(twin).exists():
        return [PartStatus("certificates", ok=False, detail=f"no authority in {twin.pki}")]
    ends = x509.load_pem_x509_certificate(ca_file(twin).read_bytes()).not_valid_after_utc
    valid = ends > dt.datetime.now(dt.UTC)
    return [PartStatus("certificates", ok=valid, detail=f"authority valid until {ends:%Y-%m-%d}")]
