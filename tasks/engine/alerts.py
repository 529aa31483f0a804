"""Alerts: a Prefect artifact and a Prefect event, raised once for each cause whatever the number of processes."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from storage.claims import claim
from storage.documents import Document, encode
from storage.stores import Store
from tasks.engine.failures import ServerError

EVENT = "layerlore.diversity.fell"
ARTIFACT = "diversity-fell"
FOLDER = "_alerts"  # of the records of alerts in the store


@dataclass(frozen=True)
class Alert:
    """An alert.

    Attributes
    ----------
    run : name of the run
    key : identity of the cause within the run
    text : a line for people
    numbers : what the event carries
    """

    run: str
    key: str
    text: str
    numbers: Document


def raise_once(store: Store, alert: Alert, send: Callable[[Alert], None], say: Callable[[str], None]) -> None:
    """Raise an alert unless it was raised before; where Prefect does not answer, a later call tries again.

    Parameters
    ----------
    send : raises the alert in Prefect
    say : shows a line of text
    """
    path = f"{FOLDER}/{alert.run}/{alert.key}.json"
    if store.exists(path):
        return
    with claim(store, path, f"an alert of run {alert.run}", on_wait=say):
        if store.exists(path):
            return
        say(alert.text)
        try:
            send(alert)
        except ServerError as error:
            say(f"this alert is not in Prefect: {error}")
            return
        store.write(path, encode({"text": alert.text, "numbers": alert.numbers}))


def send_to_prefect(alert: Alert) -> None:
    """Create a Prefect artifact and a Prefect event; without a standing server, in the server of this process.

    Raises
    ------
    ServerError : the server does not answer
    """
    from tasks.engine.server import check_settings

    check_settings()  # before the import of Prefect, which would print its own warnings
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.runtime import flow_run

    from tasks.engine.reaching import reaching_prefect
    from tasks.engine.runner import start_prefect

    if not flow_run.id:
        for name in ("prefect", "httpx"):  # the watch prints the error in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
    start_prefect()
    with reaching_prefect(), get_client(sync_client=True) as client:
        about = f"Run {alert.run}: diversity of concepts"
        here = {"flow_run_id": flow_run.id} if flow_run.id else {}
        # The event first: a server keeps it once by its id, so that a second attempt does not repeat the artifact.
        answer = client._client.post("/events", json=[_event(alert)])  # emit_event sends later, or not at all
        answer.raise_for_status()
        client.create_artifact(
            ArtifactCreate(key=ARTIFACT, type="markdown", description=about, data=alert.text, **here)
        )


def _event(alert: Alert) -> Document:
    """Return the event of an alert; its id follows from the cause, so that a server keeps it once."""
    from prefect.events.schemas.events import Event, Resource

    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{EVENT}/{alert.run}/{alert.key}")
    resource = Resource({"prefect.resource.id": f"layerlore.run.{alert.run}", "prefect.resource.name": alert.run})
    event = Event(event=EVENT, resource=resource, payload={**alert.numbers, "text": alert.text}, id=identity)
    found: Document = event.model_dump(mode="json")
    return found
