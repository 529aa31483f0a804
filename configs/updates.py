"""The archive of a network's updates in a config, from a training outside of it."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from configs.section import Location, Name, Section, check_store


class Updates(Section):
    """An archive that a loop of one's own recorded; its ids are tied to samples of a data set of the config."""

    url: Annotated[str, AfterValidator(check_store)] = Field(
        min_length=1, description="store with the closed archive of an `UpdateRecorder`: a folder or s3://bucket/prefix"
    )
    data: Name | None = Field(None, description="data set that was trained on; default: the only one of the config")
    split: Name = Field("train", description="split that was trained on")
    evaluate: Name = Field("val", description="split whose accuracy is measured")
    ids: Location = Field(
        "id",
        min_length=1,
        description="meaning of the archive's ids: id, the sample ids of the data set; order, 0, 1, ... in the split "
        "by sample id; or the path of a csv file with the columns id (of the archive) and key (of the sample)",
    )
    program: str | None = Field(
        None,
        pattern=r"^[\w.]+:[\w.]+$",
        description="import path module:function of the program that makes the training again, for a replay",
    )


def _by_url(value: object) -> object:
    """Let a URL alone stand for the section."""
    if isinstance(value, str):
        return {"url": value}
    if not isinstance(value, Mapping | Section):
        raise ValueError(f"expected a URL, or a mapping such as {{url: lore-of-mine}}, found {type(value).__name__}")
    return value


FromUrl = Annotated[Updates, BeforeValidator(_by_url)]
