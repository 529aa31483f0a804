"""Coresets of one network used for another, next to the other's own coresets."""

import pandas as pd

from tasks.metrics.paired import gap

MEASURES = {  # name here: column of the table of classes
    **{f"phi_{alpha}": f"distance_{alpha}" for alpha in ("0", "05", "1")},
    **{name: name for name in ("accuracy", "agreement", "accuracy_without")},
}
SETTING = ["network", "coreset_from", "interpreter", "selector"]


def transfer_table(classes: pd.DataFrame) -> pd.DataFrame:
    """Compare each transferred coreset with the network's own of the same selector, budget and draw.

    Parameters
    ----------
    classes : the table of classes, with `coreset_from`, the network that selected; the selector of a coreset of
        another network ends in " from NETWORK"

    Returns
    -------
    a row per (network, coreset_from, interpreter, selector, budget), no rows without transfer. `n_draws` counts the
    draws, `n_classes` the classes with both distances. For each of MEASURES there are means over draws, seeds and the
    classes with both values: `*_own`, `*_transferred`, and `*_difference`, transferred minus own, with its standard
    error over classes `*_error`.
    """
    found = {name: column for name, column in MEASURES.items() if column in classes}
    own = classes[classes["coreset_from"] == classes["network"]]
    rows = []
    foreign = classes[classes["coreset_from"] != classes["network"]]
    for key, part in foreign.groupby([*SETTING, "budget"], sort=True, observed=True):
        network, sender, interpreter, title, budget = key
        selector = str(title).removesuffix(f" from {sender}")
        at = {"network": network, "interpreter": interpreter, "selector": selector, "budget": budget}
        mine = own[(own[list(at)] == pd.Series(at)).all(axis=1)]
        row: dict[str, object] = {
            **at,
            "coreset_from": sender,
            "n_draws": len(part[["seed", "repeat"]].drop_duplicates()),
        }
        for name, column in found.items():
            row |= _compared(name, mine, part, column)
        rows.append(row)
    columns = [*SETTING, "budget", "n_draws", "n_classes"]
    numbers = [f"{name}_{part}" for name in found for part in ("own", "transferred", "difference", "error")]
    return pd.DataFrame(rows, columns=[*columns, *numbers])


def transfer_summary(classes: pd.DataFrame) -> pd.DataFrame:
    """Compare transferred coresets with the network's own over all budgets below 100 % and all selectors that transfer.

    Parameters
    ----------
    classes : as in `transfer_table`

    Returns
    -------
    a row per (network, coreset_from, interpreter) with `n_classes`, `selectors`, a list of their names, and
    `*_difference` and `*_error` as in `transfer_table`
    """
    found = {name: column for name, column in MEASURES.items() if column in classes}
    rows = []
    foreign = classes[classes["coreset_from"] != classes["network"]]
    for (network, sender, interpreter), part in foreign.groupby(SETTING[:3], sort=True, observed=True):
        own = classes[(classes["network"] == network) & (classes["coreset_from"] == network)]
        mine = own[own["interpreter"] == interpreter]
        paired = part.assign(selector=part["selector"].str.removesuffix(f" from {sender}"))
        row: dict[str, object] = {"network": network, "coreset_from": sender, "interpreter": interpreter}
        row["selectors"] = list(dict.fromkeys(paired["selector"]))
        for name, column in found.items():
            compared = gap(mine, paired, column, ("seed", "budget", "selector"))
            row |= {f"{name}_difference": compared.mean, f"{name}_error": compared.error}
            row |= {"n_classes": compared.n_classes} if name == "phi_0" else {}
        rows.append(row)
    return pd.DataFrame(rows)


def _compared(name: str, own: pd.DataFrame, transferred: pd.DataFrame, column: str) -> dict[str, float]:
    """Return the means of one measure and their difference."""
    found = gap(own, transferred, column)
    row = {f"{name}_own": found.first, f"{name}_transferred": found.second}
    row |= {f"{name}_difference": found.mean, f"{name}_error": found.error}
    return row | ({"n_classes": found.n_classes} if name == "phi_0" else {})
