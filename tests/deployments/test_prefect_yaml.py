"""The deployments and the automation, read by Prefect's own code, and what their parameters mean."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._config import _load_deploy_configs_and_actions
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.templating import apply_values
from rich.console import Console

from configs.load import load_config
from flows.plan import make_plan

Tree = dict[str, Any]  # Any: YAML
PLACES = {
    "LAYERLORE_HOME": "/srv/layerlore",
    "LAYERLORE_STORE": "s3://bucket/lore",
    "LAYERLORE_SCHEDULER": "tls://dask.example.org:8786",
}
NAMES = [
    *("digits", "digits-cluster", "tracing-digits-cluster", "decomposition-digits-cluster"),
    *("concepts-digits-cluster", "watch-digits"),
]


@pytest.fixture(scope="module")
def loaded() -> tuple[list[Tree], Tree]:
    """Deployments and actions as `prefect deploy` reads them."""
    said = io.StringIO()
    file = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
    found, actions = _load_deploy_configs_and_actions(file, console=Console(file=said))
    assert said.getvalue() == ""  # what Prefect cannot use it leaves out, with a word
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLACES.items():
            patch.setenv(name, value)
        return list(map(filled, found)), actions


def filled(tree: Tree) -> Tree:
    """Return a deployment with the shell's variables in their places."""
    found = apply_values(tree, {}, remove_notset=False)
    assert isinstance(found, dict)
    return found


@pytest.fixture(params=NAMES)
def deployment(request: pytest.FixtureRequest, loaded: tuple[list[Tree], Tree]) -> Tree:
    """Each deployment."""
    return next(one for one in loaded[0] if one["name"] == request.param)


def test_these_are_the_deployments(loaded: tuple[list[Tree], Tree]) -> None:
    assert [one["name"] for one in loaded[0]] == NAMES
    assert loaded[1] == {"build": [], "push": [], "pull": []}  # an absent pull would bake this folder in


def test_the_flow_is_named_by_its_module(deployment: Tree) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    assert ":" not in deployment["entrypoint"]
    assert "/" not in deployment["entrypoint"]
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])  # Any: its result
    assert flow.fn.__module__ == module
    assert flow.name == name
    more = {"idle"} if name == "watch" else set()
    assert set(deployment["parameters"]) == {"config", "overrides"} | more == set(flow.parameters.properties)


def test_the_parameters_make_a_plan(deployment: Tree) -> None:
    config = load_config(deployment["parameters"]["config"], deployment["parameters"]["overrides"])
    assert config.store == "s3://bucket/lore"
    assert make_plan(config).stages
    if deployment["name"].endswith("-cluster"):
        assert (config.cluster.kind, config.cluster.address) == ("address", "tls://dask.example.org:8786")
        assert config.cluster.arguments == {
            "tls_ca_file": "/srv/layerlore/tls/ca.pem",
            "tls_client_cert": "/srv/layerlore/tls/client.pem",
            "tls_client_key": "/srv/layerlore/tls/client.key",
            "require_encryption": True,
        }
    else:
        assert config.cluster.kind == "local"


def test_runs_start_in_a_folder_that_stays_and_give_signs_of_life(deployment: Tree) -> None:
    assert deployment["work_pool"]["name"] == "layerlore"
    variables = deployment["work_pool"]["job_variables"]
    assert variables["working_dir"] == "/srv/layerlore"
    assert variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert variables["env"]["OMP_NUM_THREADS"] == "1"
    limit = deployment["concurrency_limit"]
    assert (limit["limit"], limit["collision_strategy"]) == (1, "ENQUEUE")


def test_schedules_have_a_slug_so_that_deploying_again_changes_them(deployment: Tree) -> None:
    (schedule,) = deployment["schedules"]
    assert schedule["slug"]
    assert schedule["cron"]
    assert schedule["timezone"] == "UTC"
    assert schedule["active"] == (deployment["name"] in ("digits", "digits-cluster"))


def test_no_secret_is_written_down(deployments: Path) -> None:
    text = (deployments / "prefect.yaml").read_text().lower()
    assert [word for word in ("password", "secret", "auth", "aws_") if word in text] == []


def test_the_automation_waits_for_three_heartbeats_and_forces_nothing(deployments: Path) -> None:
    tree = yaml.safe_load((deployments / "automation.yaml").read_text())
    automation = AutomationCore.model_validate(tree)
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.posture == Posture.Proactive
    assert trigger.within == timedelta(seconds=90)
    assert trigger.after == {"prefect.flow-run.heartbeat"}
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    assert trigger.expect == {"prefect.flow-run.heartbeat", *ends}
    assert trigger.for_each == {"prefect.resource.id"}
    (action,) = automation.actions
    assert isinstance(action, ChangeFlowRunState)
    assert (action.state.value, action.force) == ("CRASHED", False)
