"""Bring a Prefect server to what the deployments need: a work pool with a limit, and the automation for killed runs.

Run it as often as you like. The server is the one of PREFECT_API_URL and PREFECT_API_AUTH_STRING.
"""

import argparse
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

POOL = "layerlore"
AUTOMATION = Path(__file__).parent / "automation.yaml"


def main() -> None:
    """Prepare the server and say what there is now."""
    parser = argparse.ArgumentParser(description="Prepare a Prefect server for deployments/prefect.yaml.")
    parser.add_argument("--pool", default=POOL, help="name of the work pool (%(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="flow runs at once in the pool (%(default)s)")
    given = parser.parse_args()
    with get_client(sync_client=True) as client:
        prepare_pool(client, given.pool, given.runs)
        name = prepare_automation(client, AUTOMATION)
    print(f"work pool {given.pool}, at most {given.runs} runs at once; automation {name}")


def prepare_pool(client: SyncPrefectClient, name: str, runs: int) -> None:
    """Create a pool of flow runs in processes, or set the limit of the one that is there."""
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template, concurrency_limit=runs)
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=runs))


def prepare_automation(client: SyncPrefectClient, file: Path) -> str:
    """Create the automation that `file` describes in place of those of its name, and return the name."""
    wanted = AutomationCore.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    for old in client.read_automations_by_name(wanted.name):
        client.delete_automation(old.id)
    client.create_automation(wanted)
    return wanted.name


if __name__ == "__main__":
    main()
