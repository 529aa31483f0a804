"""Make the certificates of a Dask cluster: an authority of its own, and one key each for scheduler, workers and client.

A holder of one of the keys may run code on the workers: hand each to the machines that need it, and keep ca.key off
all of them. Host names are not checked, membership is: a certificate of this authority is what lets a process in.
"""

import argparse
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES = ("scheduler", "worker", "client")
AUTHORITY = "ca"


def main() -> None:
    """Write ca.pem, ca.key and a pair per role."""
    parser = argparse.ArgumentParser(description="Make the TLS certificates of a Dask cluster.")
    parser.add_argument("folder", type=Path, help="is made; must not hold certificates yet")
    parser.add_argument("--days", type=int, default=365, help="how long they are valid (%(default)s)")
    given = parser.parse_args()
    if any(given.folder.glob("*.pem")):
        parser.error(f"{given.folder} holds certificates already; remove them, or take another folder")
    given.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_certificates(given.folder, given.days)
    print(f"{given.folder}: {', '.join(f'{role}.pem, {role}.key' for role in (AUTHORITY, *ROLES))}")


def make_certificates(folder: Path, days: int) -> None:
    """Make the authority, and sign a certificate for each role."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _sign("layerlore Dask authority", authority_key, None, authority_key, days)
    _write(folder, AUTHORITY, authority, authority_key)
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder, role, _sign(f"layerlore Dask {role}", key, authority, authority_key, days), key)


def _sign(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    authority_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    """Return a certificate of `key`; without `authority`, that of an authority itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # workers talk to each other too
    of_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(of_authority, critical=False)
        .add_extension(_key_usage(signs=authority is None), critical=True)
    )
    if authority is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """Return what a key is for: signing certificates, or proving who one is."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a certificate and its key, the key for its owner only."""
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)


if __name__ == "__main__":
    main()
