"""A growing folder of checkpoints over many looks, by clocks that the test sets."""

from pathlib import Path

from configs.concepts import Checkpoints
from tasks.steps.concepts.growing import Growing

QUIET = 5.0


def test_a_file_is_whole_once_it_is_quiet_and_is_forgotten_once_it_is_removed(tmp_path: Path) -> None:
    clock = {"now": 100.0}
    first, second = tmp_path / "epoch_1.pt", tmp_path / "epoch_2.pt"
    first.write_bytes(b"a")
    date = first.stat().st_mtime + 1
    folder = Growing("mine", Checkpoints(folder=str(tmp_path)), QUIET, lambda: clock["now"], lambda: date)
    assert folder.look() == ([], ["epoch_1.pt"])
    clock["now"] += QUIET
    assert folder.look() == ([(1, first)], [])
    assert not folder.changed()
    second.write_bytes(b"b")  # was not looked at yet
    assert not folder.changed()
    assert folder.look() == ([(1, first)], ["epoch_2.pt"])
    second.write_bytes(b"bb")  # still grows; it is not read
    assert not folder.changed()
    first.unlink()
    assert folder.changed()
    folder.look()
    assert not folder.changed()
    first.write_bytes(b"another")
    assert folder.look()[1] == ["epoch_1.pt", "epoch_2.pt"]


def test_a_file_that_is_written_again_has_changed(tmp_path: Path) -> None:
    clock = {"now": 0.0}
    file = tmp_path / "epoch_1.pt"
    file.write_bytes(b"a")
    date = file.stat().st_mtime + 1000  # written long ago: whole at the first look
    folder = Growing("mine", Checkpoints(folder=str(tmp_path)), QUIET, lambda: clock["now"], lambda: date)
    assert folder.look() == ([(1, file)], [])
    file.write_bytes(b"longer")
    assert folder.changed()
