"""Dask clusters: what a config may ask of them is looked at before anything starts."""

from pathlib import Path

import pytest

from configs.cluster import Cluster
from tasks.cluster.clusters import check_cluster
from tasks.cluster.parallel import open_pool
from tasks.cluster.rejoining import ClusterError


@pytest.mark.parametrize("kind", ["nowhere.Cluster", "distributed.NoSuchCluster"])
def test_a_cluster_class_that_cannot_be_imported_is_named(kind: str) -> None:
    with pytest.raises(ClusterError, match=rf"cluster\.kind: cannot import {kind}: "), open_pool(Cluster(kind=kind)):
        pass


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(kind="local", gpu_resource="GPU", arguments={"resources": {"GPU": 1}}),
        Cluster(kind="threads", arguments={"lifetime": "1h", "host": "127.0.0.1"}),
        Cluster(kind="local", arguments={"death_timeout": 60, "local_directory": "/tmp", "preload_nanny": []}),
        Cluster(kind="distributed.LocalCluster", gpu_resource="GPU", arguments={"its_own": 1}),
        Cluster(kind="address", address="tcp://127.0.0.1:1", gpu_resource="GPU"),
    ],
)
def test_what_a_cluster_can_give_is_taken(cluster: Cluster) -> None:
    check_cluster(cluster)


class Strict:
    """A cluster class that takes two arguments."""

    def __init__(self, cores: int, memory: str = "1GB") -> None: ...

    def scale(self, n: int) -> None: ...


def test_arguments_are_those_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed.Strict", Strict, raising=False)
    check_cluster(Cluster(kind="distributed.Strict", arguments={"cores": 2}))
    with pytest.raises(ClusterError) as caught:
        check_cluster(Cluster(kind="distributed.Strict", arguments={"cores": 2, "memry": "2GB"}))
    assert str(caught.value) == "cluster.arguments.memry: Strict takes no such argument; did you mean memory?"


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """The arguments of a cluster with TLS, whose files hold no certificates."""
    arguments = {"tls_ca_file": "ca.pem", "tls_client_cert": "client.pem", "tls_client_key": "client.key"}
    for name in arguments.values():
        (tmp_path / name).write_text("no certificate")
    return {key: str(tmp_path / name) for key, name in arguments.items()}


@pytest.mark.parametrize(
    "address", ["tls://", "tls://host", "tcp://127.0.0.1:port", "inproc://127.0.0.1/1/1", "tls://a b"]
)
def test_an_address_has_host_and_port(address: str) -> None:
    cluster = Cluster(kind="address", address=address, insecure=True)
    with pytest.raises(ClusterError, match=r"^cluster\.address: '.*' is no tcp, tls, ws or wss address"):
        check_cluster(cluster)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "ws://localhost:80"])
def test_an_address_on_this_machine_needs_no_more(address: str) -> None:
    check_cluster(Cluster(kind="address", address=address))


def test_tls_needs_certificates_that_are_there(certificates: dict[str, str]) -> None:
    def refusal(**arguments: object) -> str:
        with pytest.raises(ClusterError) as caught:
            check_cluster(Cluster(kind="address", address="tls://10.0.0.1:8786", arguments=arguments))
        return str(caught.value)

    needed = "cluster.arguments: a tls:// address needs tls_ca_file, tls_client_cert and tls_client_key"
    assert refusal() == needed
    assert refusal(require_encryption=True) == needed
    assert refusal(**{**certificates, "tls_ca_file": "/none/ca.pem"}) == (
        "cluster.arguments.tls_ca_file: no file '/none/ca.pem'"
    )
    assert refusal(**{**certificates, "tls_client_key": 5}) == "cluster.arguments.tls_client_key: no file 5"
    assert refusal(tls_client_kex="a") == (
        "cluster.arguments.tls_client_kex: distributed.Security takes no such argument; did you mean tls_client_key?"
    )
    assert refusal(**certificates).startswith("cluster.arguments: ")  # the ssl library's own words
