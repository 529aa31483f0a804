"""Arguments and options that commands share, and the store that a command is given."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.load import ConfigError, load_config, presets

if TYPE_CHECKING:
    from storage.stores import Store

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a preset")]
StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="local folder or s3://bucket/prefix, or a config that names its store")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as store=/data/lore; repeatable"),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="name of the run, needed where the store holds several")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON document in place of text, for programs")]


def opened_store(given: str) -> "Store":
    """Open the store at a URL, or the store of a config."""
    from configs.section import check_store
    from storage.stores import NoStoreError, open_store

    try:
        check_store(given)
        return open_store(given)
    except ValueError as error:
        raise ConfigError(f"store: {error}") from None
    except NoStoreError:
        if not (Path(given).suffix in (".yaml", ".yml") or given in presets()):
            raise
    return open_store(load_config(given).store)
