"""The manifests against Kubernetes' own schemas, and against each other and the scripts that they call."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.section import size_bytes

Tree = dict[str, Any]  # Any: YAML
VERSIONS = ("1.29", "1.33")  # of Kubernetes: the oldest and the newest that we claim
FOLDER = Path(__file__).parents[2] / "deployments" / "kubernetes"
INSTALLED = Path(__file__).parents[2] / "deployments"
IMAGE = "layerlore:0.1.0"


def load() -> list[tuple[str, Tree]]:
    """Return every object with the name of its file."""
    return [
        (file.name, tree) for file in sorted(FOLDER.glob("*.yaml")) for tree in yaml.safe_load_all(file.read_text())
    ]


OBJECTS = load()
IDS = [f"{tree['kind']}-{tree['metadata']['name']}" for _, tree in OBJECTS]
WORKLOADS = [tree for _, tree in OBJECTS if tree["kind"] in ("Deployment", "StatefulSet", "Job")]


def containers() -> Iterator[tuple[Tree, Tree]]:
    """Yield (pod spec, container) of every workload."""
    for tree in WORKLOADS:
        pod = tree["spec"]["template"]["spec"]
        yield from ((pod, container) for container in pod["containers"])


def named(name: str) -> Tree:
    """Return a workload."""
    return next(tree for tree in WORKLOADS if tree["metadata"]["name"] == name)


def container(name: str) -> Tree:
    """Return the only container of a workload."""
    (found,) = named(name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def validate(tree: Tree, version: str) -> None:
    """Compare with the schema; an unknown key is an error."""
    package = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    package.validate(tree, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tree", [tree for _, tree in OBJECTS], ids=IDS)
def test_an_object_fits_its_schema(tree: Tree, version: str) -> None:
    validate(tree, version)


def test_the_schemas_find_a_planted_mistake() -> None:
    package = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    for key, value in (("replica", 2), ("replicas", "two")):
        tree = copy.deepcopy(named("layerlore-dask-worker"))
        tree["spec"][key] = value
        with pytest.raises(package.ValidationError, match=rf"replica|'{value}'"):
            validate(tree, VERSIONS[-1])


def test_names_are_used_once() -> None:
    assert len(set(IDS)) == len(IDS) == 11


def test_a_workload_finds_its_pods_and_a_service_its_port() -> None:
    pods = [tree["spec"]["template"] for tree in WORKLOADS]
    for tree in WORKLOADS:
        if tree["kind"] != "Job":
            assert tree["spec"]["selector"]["matchLabels"] == tree["spec"]["template"]["metadata"]["labels"]
    for service in (tree for _, tree in OBJECTS if tree["kind"] == "Service"):
        (chosen,) = [pod for pod in pods if pod["metadata"]["labels"] == service["spec"]["selector"]]
        open_ports = {port["name"]: port["containerPort"] for c in chosen["spec"]["containers"] for port in c["ports"]}
        for port in service["spec"]["ports"]:
            assert open_ports[port["targetPort"]] == port["port"]


def test_addresses_are_those_of_services() -> None:
    services = {
        f"{tree['metadata']['name']}:{port['port']}"
        for _, tree in OBJECTS
        if tree["kind"] == "Service"
        for port in tree["spec"]["ports"]
    }
    text = "\n".join(file.read_text() for file in FOLDER.glob("*.yaml"))
    used = set(re.findall(r"[/@](layerlore-[a-z-]+:\d+)", text))
    assert used == services


def test_pods_have_no_more_rights_than_they_need() -> None:
    for pod, one in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False  # PREFECT_..._PORT would be taken for settings
        assert one["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(one["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in one["resources"]["limits"]


def test_secrets_come_from_secrets_that_the_readme_makes(deployments: Path) -> None:
    readme = (deployments / "README.md").read_text()
    for pod, one in containers():
        wanted: list[tuple[str, str | None]] = [(ref["secretRef"]["name"], None) for ref in one.get("envFrom", ())]
        for variable in one.get("env", ()):
            if "PASSWORD" in variable["name"] or "AUTH" in variable["name"]:
                reference = variable["valueFrom"]["secretKeyRef"]
                wanted.append((reference["name"], reference["key"]))
        wanted += [(volume["secret"]["secretName"], None) for volume in pod.get("volumes", ())]
        for name, key in wanted:
            assert f"create secret generic {name}" in readme, name
            assert key is None or f"--from-literal={key}=" in readme, key
        mounted = {mount["name"] for mount in one.get("volumeMounts", ())}
        assert mounted >= {volume["name"] for volume in pod.get("volumes", ())}
        assert all(volume["secret"]["defaultMode"] == 0o440 for volume in pod.get("volumes", ()))


def test_commands_are_in_the_image() -> None:
    for _, one in containers():
        if one["image"] != IMAGE:
            assert one["image"].partition(":")[2] not in ("", "latest")
            continue
        program = one["command"][0]
        if program.startswith("/"):
            script = INSTALLED / Path(program).relative_to("/opt/layerlore/deployments")
            assert script.is_file()
            assert script.stat().st_mode & 0o111
        else:
            assert program == "prefect"


def test_workers_fit_their_pods() -> None:
    cpu = container("layerlore-dask-worker")
    *_, workers, memory = cpu["command"]
    assert int(workers) == int(cpu["resources"]["requests"]["cpu"])
    assert int(workers) * size_bytes(memory) <= size_bytes(cpu["resources"]["limits"]["memory"] + "B")
    gpu = container("layerlore-dask-gpu-worker")
    devices, memory = gpu["resources"]["limits"]["nvidia.com/gpu"], gpu["command"][-1]
    assert devices * size_bytes(memory) <= size_bytes(gpu["resources"]["limits"]["memory"] + "B")
    assert not {"NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"} & {v["name"] for v in gpu["env"]}  # the plugin's


def test_a_worker_has_time_to_leave() -> None:
    assert named("layerlore-worker")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 120
