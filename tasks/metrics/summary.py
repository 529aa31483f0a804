"""Tables of the coreset question: means per draw and budget, per budget, and per selector."""

import numpy as np
import pandas as pd

from tasks.metrics.robustness import counts_for_robustness, phi, robustness

ALPHAS = ("0", "05", "1")  # alpha = 0, 0.5, 1 in the names of columns
SETTING = ["network", "interpreter", "selector"]
DRAW = ["seed", "repeat"]
MEANS = [
    *("rank_reference", "rank", "accuracy", "accuracy_top5", "agreement", "accuracy_plain", "accuracy_plain_top5"),
    *("error_fit", "error_val", "fidelity"),
]
UNITS = [  # measures of interpreters that find units, NaN for others
    *("accuracy_without", "units", "units_reference", "units_shared", "layers_compared", "layers_skipped"),
]
SUMS = ["n_class", "n_kept", "n_val", "seconds"]
COUNTS = ["clamped"]  # of interpreters that read negative activations as 0
KINDS = {"phi": "distance", "null": "null", "self": "self"}  # column prefix here: prefix in the table by class


def by_budget(classes: pd.DataFrame) -> pd.DataFrame:
    """Average the table of classes over classes.

    Parameters
    ----------
    classes : a row per (network, seed, interpreter, selector, repeat, budget, label); distances in radians, NaN where
        the class is left out; accuracies, agreement and fidelity as shares; errors relative; `seconds` of the fit

    Returns
    -------
    a row per (network, seed, interpreter, selector, repeat, budget). `phi_0 phi_05 phi_1`, `null_*` and `self_*` are
    means over the classes with a distance. `left_out` counts the classes without distance at alpha = 0, `n_classes`
    all classes. Ranks, accuracies, errors and fidelity are means over classes; counts and seconds are sums.
    `n_rows` is the mean number of rows of a distance: of a class, and of units also of a layer that is compared. The
    measures of units (`accuracy_without`, `units`, `layers_skipped` and more) are means where the table has them.
    `clamped` sums the negative activations that were read as 0, `never_predicted` counts the classes that the network
    predicts for no sample of the coreset; each where an interpreter logs it.
    """
    keys = [*SETTING, *DRAW, "budget"]
    groups = classes.assign(n_rows=_rows_of_a_distance(classes)).groupby(keys, sort=True, observed=True)
    means = [*MEANS, "n_rows", *(name for name in UNITS if name in classes)]
    counts = [*SUMS, *(name for name in COUNTS if name in classes)]
    sums = groups[counts].sum(min_count=1)
    table = pd.concat([groups["label"].size().rename("n_classes"), groups[means].mean(), sums], axis=1)
    if "predicted" in classes:  # NaN for interpreters that do not look at predictions
        known = classes.assign(never_predicted=(classes["predicted"] == 0).where(classes["predicted"].notna()))
        table["never_predicted"] = known.groupby(keys, sort=True, observed=True)["never_predicted"].sum(min_count=1)
    for prefix, source in KINDS.items():
        for alpha in ALPHAS:
            table[f"{prefix}_{alpha}"] = groups[f"{source}_{alpha}"].agg(lambda column: phi(column).mean)
    table["left_out"] = groups["distance_0"].agg(lambda column: phi(column).left_out)
    return table.reset_index()


def _rows_of_a_distance(classes: pd.DataFrame) -> pd.Series:
    """Return the rows that one distance of each class compares: those of its layers are divided by their number."""
    rows = classes["n_rows"].astype(float)
    if "layers_compared" not in classes:
        return rows
    layers = classes["layers_compared"]
    return rows.where(layers.isna(), rows / layers.where(layers > 0))


def over_repeats(budgets: pd.DataFrame) -> pd.DataFrame:
    """Average the table of budgets over network seeds and repeated draws.

    Parameters
    ----------
    budgets : the table of `by_budget`

    Returns
    -------
    a row per (network, interpreter, selector, budget): `<column>_mean` and `<column>_std` of every numeric column,
    with a degree of freedom less (NaN with one draw); `n_draws`, the number of (seed, repeat)
    """
    keys = [*SETTING, "budget"]
    numbers = [name for name in budgets.columns if name not in {*keys, *DRAW}]
    groups = budgets.groupby(keys, sort=True, observed=True)
    means = groups[numbers].mean().add_suffix("_mean")
    spreads = groups[numbers].std(ddof=1).add_suffix("_std")
    columns = [f"{name}_{part}" for name in numbers for part in ("mean", "std")]
    table = pd.concat([means, spreads], axis=1)[columns]
    table.insert(0, "n_draws", groups.size())
    return table.reset_index()


def robustness_table(budgets: pd.DataFrame) -> pd.DataFrame:
    """Average Phi over the budgets from 10 % to 50 %, then over seeds and repeated draws.

    Parameters
    ----------
    budgets : the table of `by_budget`

    Returns
    -------
    a row per (network, interpreter, selector), with columns for each alpha. `mean_*` and `std_*` are the mean and the
    population standard deviation of Phi over budgets, both averaged over draws. `mean_*_spread` and `std_*_spread` are
    their standard deviations over draws (the ±), with a degree of freedom less: NaN with one draw. `null_*` is the mean
    null distance over the same budgets and draws. `n_draws` counts the draws, `n_budgets` the budgets with a Phi at
    alpha = 0. `left_out` counts the classes without a distance, over the draws and budgets that count.
    """
    records = []
    for key, rows in budgets.groupby([*SETTING, *DRAW], sort=True, observed=True):
        record = dict(zip([*SETTING, *DRAW], key, strict=True))
        records.append(record | _robustness_of_draw(rows))
    groups = pd.DataFrame(records).groupby(SETTING, sort=True)
    table = groups.size().rename("n_draws").to_frame()
    table["left_out"] = groups["left_out"].sum()
    table["n_budgets"] = groups["n_budgets"].max()
    for name in (f"{part}_{alpha}" for alpha in ALPHAS for part in ("mean", "std")):
        table[name] = groups[name].mean()
        table[f"{name}_spread"] = groups[name].std(ddof=1)
    for alpha in ALPHAS:
        table[f"null_{alpha}"] = groups[f"null_{alpha}"].mean()
    return table.reset_index()


def _robustness_of_draw(rows: pd.DataFrame) -> dict[str, float]:
    """Return the robustness at each alpha of one draw, from a row per budget."""
    inside = rows[rows["budget"].map(counts_for_robustness)]
    record: dict[str, float] = {
        "left_out": int(inside["left_out"].sum()),
        "n_budgets": int(np.isfinite(inside["phi_0"]).sum()),
    }
    for alpha in ALPHAS:
        mean, std = robustness(dict(zip(rows["budget"], rows[f"phi_{alpha}"], strict=True)))
        null, _ = robustness(dict(zip(rows["budget"], rows[f"null_{alpha}"], strict=True)))
        record |= {f"mean_{alpha}": mean, f"std_{alpha}": std, f"null_{alpha}": null}
    return record
