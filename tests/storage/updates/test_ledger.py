import numpy as np
import pytest

from storage.documents import DamagedError
from storage.updates.ledger import Entry, ledger_bytes, read_ledger, row_runs
from storage.updates.writer import Written


def entry(step: int, row: int, *, recorded: bool = True) -> Entry:
    return Entry(
        step=step,
        row=row,
        recorded=recorded,
        epoch=step // 2,
        label=-1,
        lrs=(0.1 / (step + 1), 0.5),
        clip=1.0,
        loss=float(step),
        augmentation=-1,
        examples=np.arange(step % 3, dtype=np.int64) + 2**40,
        ghosts=np.zeros(0, np.int64),
    )


ENTRIES = [entry(10, 0), entry(11, 1, recorded=False), entry(12, 1, recorded=False), entry(13, 2), entry(14, 3)]
WRITTEN = Written({"fc": [1.0, 2.0, 3.0, 4.0]}, {"fc": [1, 2**64 - 1, 3, 4]})


def test_what_is_written_is_read() -> None:
    table = read_ledger(ledger_bytes(ENTRIES, WRITTEN), "it")
    assert table["step"].tolist() == [10, 11, 12, 13, 14]
    assert table["epoch"].tolist() == [5, 5, 6, 6, 7]
    assert table["lr"].tolist() == [0.1 / (step + 1) for step in range(10, 15)]
    assert table["lrs"][3].tolist() == [0.1 / 14, 0.5]
    assert [ids.tolist() for ids in table["examples"]] == [e.examples.tolist() for e in ENTRIES]
    assert {ids.dtype for ids in [*table["examples"], *table["ghosts"]]} == {np.dtype(np.int64)}


def test_a_gap_has_one_norm_and_digest_at_its_end() -> None:
    table = read_ledger(ledger_bytes(ENTRIES, WRITTEN), "it")
    np.testing.assert_array_equal(table["norm/fc"], [1.0, np.nan, 2.0, 3.0, 4.0])
    assert table["digest/fc"].tolist() == [1, 0, 2**64 - 1, 3, 4]


def test_runs_never_mix_recorded_steps_and_gaps() -> None:
    table = read_ledger(ledger_bytes(ENTRIES, WRITTEN), "it")
    assert row_runs(table) == [
        (range(0, 1), range(10, 11), True),
        (range(1, 2), range(11, 13), False),
        (range(2, 4), range(13, 15), True),
    ]


def test_the_same_rows_give_the_same_bytes() -> None:
    assert ledger_bytes(ENTRIES, WRITTEN) == ledger_bytes(list(ENTRIES), WRITTEN)
    assert len(read_ledger(ledger_bytes([], Written({"fc": []}, {"fc": []})), "it")) == 0


def test_damage_is_named() -> None:
    with pytest.raises(DamagedError, match="it: expected a ledger"):
        read_ledger(b"PAR1 and no more", "it")
