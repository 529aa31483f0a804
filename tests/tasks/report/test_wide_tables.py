"""A table that is wider than a page is printed in parts, and every cell knows its head."""

from tasks.report.cells import MOST_COLUMNS, Column, Table


def wide(n_words: int, n_numbers: int, groups: tuple[tuple[str, int], ...] = ()) -> Table:
    """Return a table of two rows, whose cells are their row and column."""
    columns = tuple(Column(f"c{i}", numeric=i >= n_words) for i in range(n_words + n_numbers))
    rows = tuple(tuple(f"{row}.{i}" for i in range(len(columns))) for row in range(2))
    return Table("Many columns", columns, rows, groups, note="All rows.", csv="data/many.csv")


def titles(table: Table) -> list[str]:
    """Return the heads."""
    return [column.title for column in table.columns]


def test_a_table_that_fits_stays_whole() -> None:
    table = wide(2, MOST_COLUMNS - 2)
    assert table.parts == (table,)


def test_each_part_has_the_first_columns_and_together_they_have_all_others_once() -> None:
    table = wide(2, 23)
    parts = table.parts
    assert [len(part.columns) for part in parts] == [10, 10, 9]
    assert all(titles(part)[:2] == ["c0", "c1"] for part in parts)
    assert [title for part in parts for title in titles(part)[2:]] == [f"c{i}" for i in range(2, 25)]
    for part in parts:
        for number, row in enumerate(part.rows):
            assert row == tuple(f"{number}.{title[1:]}" for title in titles(part))
    assert [part.note for part in parts] == ["All rows.", "Continued.", "Continued."]
    assert [part.csv for part in parts] == ["", "", "data/many.csv"]  # the file is named once


def test_groups_of_columns_are_not_cut() -> None:
    table = wide(1, 16, (("", 1), ("distance", 6), ("accuracy", 6), ("cost", 4)))
    parts = table.parts
    assert [part.groups for part in parts] == [(("", 1), ("distance", 6)), (("", 1), ("accuracy", 6), ("cost", 4))]
    assert [label for part in parts for label in part.labels[1:]] == [
        *(f"distance, c{i}" for i in range(1, 7)),
        *(f"accuracy, c{i}" for i in range(7, 13)),
        *(f"cost, c{i}" for i in range(13, 17)),
    ]


def test_a_group_that_is_wider_than_a_page_is_cut_where_the_page_ends() -> None:
    parts = wide(1, 30, (("", 1), ("all", 30))).parts
    assert [len(part.columns) for part in parts] == [12, 12, 9]
    assert parts[1].groups == (("", 1), ("all", 11))


def test_each_part_repeats_the_columns_that_tell_its_rows_apart() -> None:
    columns = ("network", "selector", "budget", *(f"c{i}" for i in range(12)))
    table = Table(
        "Two selectors at two budgets",
        tuple(Column(title, numeric=i >= 2) for i, title in enumerate(columns)),
        tuple(("net", name, budget, *map(str, range(12))) for name in ("a", "b") for budget in ("10 %", "50 %")),
        (("", 3), ("distance", 6), ("accuracy", 6)),
    )
    for part in table.parts:
        assert titles(part)[:3] == ["network", "selector", "budget"]
        assert part.groups[0] == ("", 3)
    assert [title for part in table.parts for title in titles(part)[3:]] == [f"c{i}" for i in range(12)]


def test_rows_that_nothing_tells_apart_repeat_words_alone() -> None:
    table = Table("Alike", tuple(Column(f"c{i}", numeric=i >= 2) for i in range(20)), (("x",) * 20,) * 2)
    assert [titles(part)[:3] for part in table.parts] == [["c0", "c1", "c2"], ["c0", "c1", "c11"]]
