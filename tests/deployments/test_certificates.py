"""The certificates of a Dask cluster: signed by their own authority, keys for their owner only."""

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROLES = ("scheduler", "worker", "client")


def make(deployments: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the script."""
    command = [sys.executable, str(deployments / "address" / "certificates.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def folder(deployments: Path, tmp_path: Path) -> Path:
    """A folder of certificates that are valid for ten days."""
    made = tmp_path / "tls"
    done = make(deployments, made, "--days", 10)
    assert done.returncode == 0, done.stderr
    return made


def test_every_role_has_a_certificate_of_the_authority(folder: Path) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for role in ROLES:
        certificate = x509.load_pem_x509_certificate((folder / f"{role}.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=9, hours=23) < left <= timedelta(days=10)
        key = load_pem_private_key((folder / f"{role}.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == certificate.public_key()


def test_keys_are_distinct_and_for_their_owner_only(folder: Path) -> None:
    keys = sorted(folder.glob("*.key"))
    assert [key.stem for key in keys] == ["ca", "client", "scheduler", "worker"]
    assert len({key.read_bytes() for key in keys}) == 4
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_certificates_are_not_replaced(deployments: Path, folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    done = make(deployments, folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"error: {folder} holds certificates already; remove them, or take another folder"
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
