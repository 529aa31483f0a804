"""Two runs that write one partition at once, with other last digits: what the first one wrote stays."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import partitions
from storage.layouts import ArrayLayout, Layout
from storage.partitions import OvertakenError, Partition
from storage.specs import StageSpec
from storage.stages import begin_stage, open_finished
from storage.stores import Store
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]

OTHER = np.full((4, 3), 1.0000001, np.float32)
WRITES: list[Callable[[Partition], None]] = [
    lambda part: part.write("maps", OTHER),
    lambda part: part.write("label", np.full(4, 7)),
    lambda part: part.write_file("table-0", b"another row"),
]


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "marked"])
@pytest.mark.parametrize("after", range(len(WRITES) + 1))
def test_what_the_first_run_wrote_stays(
    any_toy: "Toy", values: Values, after: int, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run makes the partition, or the stage, after some of our writes."""
    monkeypatch.setattr(partitions, "LOOK", 0.0)
    late, first = any_toy.begin(), any_toy.begin()
    wrote = []

    def meet() -> None:
        any_toy.make() if sealed else any_toy.write(first, 0)

    def be_late() -> None:
        with late.partition(0) as part:
            for number, write in enumerate(WRITES):
                if number == after:
                    meet()
                write(part)
                wrote.append(number)
            if after == len(WRITES):
                meet()

    text = r"^toy of tests \[.{8}\]: another run wrote partition 0 in the meantime; what it wrote is kept$"
    with pytest.raises(OvertakenError, match=text):
        be_late()
    assert wrote == list(range(after))
    any_toy.make()
    finished = open_finished(any_toy.store, any_toy.spec)
    for name, expected in values.items():
        np.testing.assert_array_equal(finished.read(name), expected)
    assert finished.read_file("table-0") == b"row 0"
    assert list(verify_stage(any_toy.store, any_toy.spec.path)) == []


def test_the_first_write_looks_however_soon_it_comes(any_toy: "Toy", values: Values) -> None:
    def be_late() -> None:
        with any_toy.begin().partition(0) as part:
            any_toy.make()
            part.write("maps", OTHER)

    with pytest.raises(OvertakenError):
        be_late()
    np.testing.assert_array_equal(open_finished(any_toy.store, any_toy.spec).read("maps"), values["maps"])


def test_writes_that_follow_each_other_cost_two_looks(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before data are written and one before the partition record, for any number of arrays."""
    layout = Layout(1, {f"a{number}": ArrayLayout((4,), "int64", ("n",), 4, 4) for number in range(20)})
    stage = begin_stage(far, StageSpec("toy", 1), layout)
    read, looks = Store.read, list[str]()

    def counted(store: Store, path: str) -> bytes:
        looks.append(path)
        return read(store, path)

    monkeypatch.setattr(Store, "read", counted)
    monkeypatch.setattr(partitions, "LOOK", 60.0)  # however slow this machine is
    with stage.partition(0) as part:
        for name in layout.arrays:
            part.write(name, np.arange(4))
    assert looks == [f"{stage.spec.path}/markers/000000.json"] * 2
