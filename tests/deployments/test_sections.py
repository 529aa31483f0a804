"""The cluster sections that users copy into their configs, and the limits that they state."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.cluster import Cluster
from configs.section import size_bytes
from tasks.cluster.clusters import check_cluster


def section(deployments: Path, name: str) -> Cluster:
    """Return a section as the config has it."""
    tree: dict[str, Any] = yaml.safe_load((deployments / name).read_text())  # Any: YAML
    assert list(tree) == ["cluster"]
    return Cluster.model_validate(tree["cluster"])


@pytest.mark.parametrize("name", ["address/cluster.yaml", "address/cluster-gpu.yaml"])
def test_a_running_scheduler_is_joined_over_tls(deployments: Path, name: str) -> None:
    found = section(deployments, name)
    assert (found.kind, found.insecure, found.arguments["require_encryption"]) == ("address", False, True)
    assert found.address is not None
    assert found.address.startswith("tls://")
    files = {key: Path(value).name for key, value in found.arguments.items() if key.startswith("tls_")}
    assert files == {"tls_ca_file": "ca.pem", "tls_client_cert": "client.pem", "tls_client_key": "client.key"}
    assert (found.gpu_resource, found.device) == (("GPU", "cuda") if "gpu" in name else (None, "auto"))


@pytest.mark.parametrize("name", ["slurm/cluster-cpu.yaml", "slurm/cluster-gpu.yaml"])
def test_slurm_jobs_share_memory_as_the_config_reckons(deployments: Path, name: str) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install '.[slurm]'")
    found = section(deployments, name)
    check_cluster(found)  # the class can be imported
    asked = found.arguments
    assert size_bytes(asked["memory"]) / asked["processes"] == size_bytes(found.memory_limit)
    assert asked["cores"] == asked["processes"]  # one thread a worker
    assert found.workers % asked["processes"] == 0  # whole jobs
    assert (asked["security"], asked["protocol"]) == (True, "tls://")
    assert (found.gpu_resource, found.device) == (("GPU", "cuda") if "gpu" in name else (None, "auto"))
    if "gpu" in name:  # one worker per device
        assert asked["processes"] == 1
        assert asked["job_extra_directives"] == ["--gres=gpu:1"]
