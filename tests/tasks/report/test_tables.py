"""Tables of the stages from data frames."""

import pandas as pd

from tasks.report import tables
from tasks.report.cells import Table
from tasks.report.formats import NBSP
from tasks.report.pages import RunFacts


def plain(table: Table) -> list[list[str]]:
    """Return the cells with plain spaces."""
    return [[cell.replace(NBSP, " ") for cell in row] for row in table.rows]


def test_cost_is_summed_by_kind_of_stage(facts: RunFacts) -> None:
    rows = plain(tables.cost_table(facts.stages))
    assert [row[0] for row in rows] == ["manifest", "training", "activations", "features"]
    assert rows[0][1:] == ["1", "1", "1", "0.42 s", "180 MB"]
    assert rows[3][1:] == ["2", "0", "20", "1 h 06 min", "512 MB"]  # 4000.4 s; one peak is unknown


def test_stage_table_is_capped_and_says_so(facts: RunFacts) -> None:
    table = tables.stage_table(facts.stages)
    assert plain(table)[0] == ["manifest", "digits", "a1b2c3d4e5f6", "1", "0.42 s", "180 MB", "yes"]
    assert table.note == ""
    many = pd.concat([facts.stages] * 100)
    assert len(tables.stage_table(many).rows) == tables.MAX_STAGES
    assert "The first 400 of 500 stages" in tables.stage_table(many).note
