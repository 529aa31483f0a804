"""The page names files that are there, and what it says to copy is valid."""

import re
from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) >= 8
    for link in links:
        assert link.removeprefix("#") in anchors if link.startswith("#") else (FOLDER / link).exists(), link


def test_named_files_are_there_and_scripts_can_be_run() -> None:
    named = set(re.findall(r"(?:deployments/)?((?:address|slurm|kubernetes|docker)/[\w.-]*\w)", TEXT))
    named |= set(re.findall(r"deployments/([\w-]+\.\w+)", TEXT)) | set(re.findall(r"^\| `([\w-]+\.yaml)`", TEXT, re.M))
    assert {"deploy.sh", "prepare.py", "address/certificates.py", "slurm/run.sbatch", "dask.yaml"} <= named
    for name in named:
        found = [place for place in (FOLDER, FOLDER / "kubernetes", ROOT / "deployments") if (place / name).is_file()]
        assert found, name
        if name.endswith((".sh", ".sbatch")):
            assert (found[0] / name).stat().st_mode & 0o111, name


def test_every_file_of_kubernetes_is_explained() -> None:
    explained = set(re.findall(r"^\| `([\w-]+\.yaml)`", TEXT, re.M))
    assert explained == {file.name for file in (FOLDER / "kubernetes").glob("*.yaml")}


def test_the_deployment_to_copy_fits_beside_ours() -> None:
    (block,) = blocks("yaml")
    whole = (FOLDER / "prefect.yaml").read_text()
    ours = len(yaml.safe_load(whole)["deployments"])
    model = PrefectYamlModel.model_validate(yaml.safe_load(f"{whole}\n{block}"))
    assert len(model.deployments) == ours + 1
    assert (model.deployments[-1].name, model.deployments[-1].entrypoint) == ("pets", "flows.run.run")
    assert model.deployments[-1].work_pool == model.deployments[0].work_pool


@pytest.mark.parametrize("name", ["LAYERLORE_HOME", "LAYERLORE_STORE", "LAYERLORE_SCHEDULER"])
def test_what_prefect_yaml_asks_of_the_shell_is_set(name: str) -> None:
    assert f"{{{{ ${name} }}}}" in (FOLDER / "prefect.yaml").read_text()
    assert any(f"{name}=" in block for block in blocks("bash"))
