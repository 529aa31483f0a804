"""The `cluster` section of a config: the workers that compute partitions."""

from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from configs.section import Section

UNSHELTERED = "use TLS, or set `insecure: true` on a network you trust: anyone there could run code on the workers"


class Cluster(Section):
    """The workers that compute partitions."""

    kind: str = Field(
        "local",
        pattern=r"^(local|threads|serial|address|[\w.]+\.[\w.]+)$",
        description="kind of cluster: local (processes), threads, serial (no Dask), address (a running scheduler), "
        "or the import path of a Dask cluster class",
    )
    workers: int = Field(2, ge=1, description="number of worker processes or threads")
    memory_limit: str = Field("4GB", pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$", description="memory limit of one worker")
    address: str | None = Field(None, description="address of the running scheduler, for `kind: address`")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the cluster class")  # Any: the class's own
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device on which networks run; auto takes a GPU where there is one"
    )
    gpu_resource: str | None = Field(
        None, description="Dask resource that a stage with a network requests, such as GPU"
    )
    worker_timeout: int | None = Field(
        300,
        ge=1,
        description="seconds without any worker after which a run ends; null: the run waits without limit",
    )
    stage_timeout: int | None = Field(None, ge=1, description="seconds after which a stage is stopped")
    insecure: bool = Field(False, description="accept a scheduler beyond this machine without TLS")

    @model_validator(mode="after")
    def _address_fits(self) -> "Cluster":
        if (self.kind == "address") != (self.address is not None):
            raise ValueError(
                f"expected `address` with `kind: address` and only there, found kind {self.kind} "
                f"{'with' if self.address is not None else 'without'} `address`; correct one of the two"
            )
        if self.address is not None and "@" in self.address:
            raise ValueError(
                "address: expected an address without credentials, found one with an @; "
                "give certificates in `cluster.arguments`"
            )
        if self.address is not None and not (self.insecure or is_sheltered(self.address)):
            raise ValueError(f"address: expected tls:// beyond this machine, found {self.address}; {UNSHELTERED}")
        return self


def is_sheltered(address: str) -> bool:
    """Say whether a scheduler is closed to strangers: it uses TLS, or listens only on this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        return parts.scheme in ("tls", "inproc") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
