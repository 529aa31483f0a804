"""The section of a config that says where partitions run."""

from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from configs.section import Section

UNSHELTERED = "anyone there could run code on the workers: use TLS, or set `insecure: true` on a network you trust"


class Cluster(Section):
    """Where partitions run."""

    kind: str = Field(
        "local",
        pattern=r"^(local|threads|serial|address|[\w.]+\.[\w.]+)$",
        description="local (processes), threads, serial (no Dask), address (a running scheduler), "
        "or the import path of a Dask cluster class",
    )
    workers: int = Field(2, ge=1, description="worker processes or threads")
    memory_limit: str = Field("4GB", pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$", description="memory of one worker")
    address: str | None = Field(None, description="scheduler address, for kind address")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the cluster class")  # Any: the class's own
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where networks run")
    gpu_resource: str | None = Field(None, description="Dask resource that stages with a network ask for, such as GPU")
    worker_timeout: int | None = Field(
        300,
        ge=1,
        description="seconds without any worker after which a run ends; null: it waits for as long as it takes",
    )
    stage_timeout: int | None = Field(None, ge=1, description="seconds after which a stage is stopped")
    insecure: bool = Field(False, description="accept a scheduler beyond this machine without TLS")

    @model_validator(mode="after")
    def _address_fits(self) -> "Cluster":
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("`address` goes with `kind: address`, and that kind needs it")
        if self.address is not None and "@" in self.address:
            raise ValueError("an address holds no credentials; a scheduler asks for certificates")
        if self.address is not None and not (self.insecure or is_sheltered(self.address)):
            raise ValueError(f"address {self.address} is beyond this machine and not tls://; {UNSHELTERED}")
        return self


def is_sheltered(address: str) -> bool:
    """Say whether strangers cannot use a scheduler: it asks for certificates, or listens on this machine alone."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        return parts.scheme in ("tls", "inproc") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
