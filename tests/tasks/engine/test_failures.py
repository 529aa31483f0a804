"""Which errors are a stop from the keyboard: itself, behind another error, or only printed by one."""

import pytest
from pydantic import BaseModel, model_serializer
from pydantic_core import PydanticSerializationError

from tasks.engine.failures import caused_by_stop


class Stopped(BaseModel):
    """A model that is stopped while it is written."""

    @model_serializer
    def _written(self) -> dict[str, int]:
        raise KeyboardInterrupt


def test_a_stop_while_a_model_is_written_is_a_stop() -> None:
    """Pydantic's serialiser drops the cause of its error."""
    for write in (Stopped().model_dump, Stopped().model_dump_json):
        with pytest.raises(PydanticSerializationError) as error:
            write()
        assert caused_by_stop(error.value)
        later = RuntimeError("the run failed")
        later.__cause__ = error.value
        assert caused_by_stop(later)


def test_other_errors_are_not_a_stop() -> None:
    assert caused_by_stop(KeyboardInterrupt())
    assert not caused_by_stop(ValueError("expected a number, found KeyboardInterrupt: "))
    assert not caused_by_stop(PydanticSerializationError("expected a number"))
