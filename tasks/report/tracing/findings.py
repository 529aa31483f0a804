"""The headline findings of the tracing page: sentences computed from its tables, no stronger than the numbers."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.findings import Finding
from tasks.report.tracing.scores import VALIDITY, score_sentences, validity_sentences

EARLY = 4  # the first quarter of the epochs
OWNED = 0.1  # least class specificity of a layer that classes own
NAMED = 4  # layers named in a sentence


def tracing_findings(
    layers: pd.DataFrame, shares: pd.DataFrame, evaluation: pd.DataFrame, twin: str = ""
) -> list[Finding]:
    """State what the tables of one network and seed show.

    Parameters
    ----------
    layers, shares, evaluation : rows of one network and seed, as `TracingResults` describes them
    twin : sentence on the accuracy of a shallower network

    Returns
    -------
    findings on classes, depth, time, initial weights, completeness, the split of batches, scores and evaluation, in
    this order
    """
    findings = [Finding("Classes", text) for text in _agreement(layers)]
    findings += [Finding("Depth", f"{text}{twin}") for text in _unowned(layers, shares)]
    findings += [Finding("When", text) for text in _early(shares)]
    findings += [Finding("Start", text) for text in _initial(layers)]
    findings += [Finding("Adds up", text) for text in _completeness(layers)]
    findings += [Finding("Split", text) for text in _split(layers)]
    findings += [Finding("In a batch", text) for text in _spread(layers)]
    findings += [Finding("Which score", text) for text in score_sentences(evaluation)]
    findings += [Finding("Valid", text) for text in validity_sentences(evaluation)]
    return findings + [Finding("Trust", text) for text in _evaluation(evaluation)]


def early_shares(shares: pd.DataFrame) -> tuple[pd.Series, int, int]:
    """Return by layer the part of gamma that the first quarter of the epochs brought, and the numbers of epochs.

    Layers whose gammas do not add up to more than 0 are left out: their parts have no meaning.
    """
    epochs = np.unique(shares["epoch"])
    first = -(-len(epochs) // EARLY)
    by_layer = shares.groupby("layer", sort=False)["gamma"].sum()
    early = shares[shares["epoch"].isin(epochs[:first])].groupby("layer", sort=False)["gamma"].sum()
    positive = by_layer[by_layer > 0]
    return (early.reindex(positive.index, fill_value=0.0) / positive), first, len(epochs)


def _agreement(layers: pd.DataFrame) -> Iterable[str]:
    """Name the layers with a top-1 example that is most and least often of the predicted class."""
    finite = layers[np.isfinite(layers["agreement_1"].astype(float))]
    if finite.empty:
        return
    value = finite["agreement_1"].to_numpy(float)
    most, least = (finite["layer"].iloc[int(i)] for i in (value.argmax(), value.argmin()))
    text = f"The top-1 example is of the predicted class for {formats.share(value.max())} of the queries in {most}"
    text += f" (most) and {formats.share(value.min())} in {least} (least)." if value.max() > value.min() else "."
    if len(value) >= 4:
        half = len(value) // 2
        early, late = value[:half].mean(), value[-half:].mean()
        verdict = "more than" if late > early else "less than" if late < early else "as much as"
        text += (
            f" The later half of the layers agrees {verdict} the earlier half: {formats.share(late)} against "
            f"{formats.share(early)} on average."
        )
    yield text


def class_specificity(layers: pd.DataFrame, n_classes: int) -> pd.Series:
    """Return by layer how far class agreement @10 is from chance (0) to certainty (1), NaN where it is not known."""
    chance = 1 / n_classes
    return (layers.set_index("layer")["agreement_10"].astype(float) - chance) / (1 - chance)


def _unowned(layers: pd.DataFrame, shares: pd.DataFrame) -> Iterable[str]:
    """Name the layers that no class owns: for the paper, layers that a shallower network does without."""
    n_classes = shares["label"].nunique() if "label" in shares else 0
    if n_classes < 2 or "agreement_10" not in layers:
        return
    found = class_specificity(layers, n_classes).dropna()
    if len(found) < 2:
        return
    low, high = found[found < OWNED], found[found >= OWNED]
    scale = f"on a scale from chance (0, {formats.share(1 / n_classes)} agreement @10) to certainty (1)"
    if not len(low):
        yield (
            f"Classes own every layer: class specificity is {formats.measure(found.min())} or more {scale}, least in "
            f"{found.idxmin()}. So the paper's advice, that a shallower network is enough, does not follow here."
        )
        return
    named = ", ".join(f"{name} ({formats.measure(value)})" for name, value in low.head(NAMED).items())
    more = f" and {len(low) - NAMED} more" if len(low) > NAMED else ""
    rest = f" The others reach {formats.measure(high.max())} in {high.idxmax()}." if len(high) else ""
    yield (
        f"No class owns {len(low)} of {len(found)} layers: class specificity is below {OWNED:g} {scale} in "
        f"{named}{more}.{rest} The paper reads such layers as ones that a shallower network can do without."
    )


def _early(shares: pd.DataFrame) -> Iterable[str]:
    """Say in which layers the first epochs brought most of gamma."""
    if shares.empty:
        return
    part, first, n_epochs = early_shares(shares)
    if part.empty or n_epochs < 2:
        return
    epochs = "epoch" if first == 1 else f"{first} epochs"
    more = int((part > 0.5).sum())
    text = (
        f"The first {epochs} of {n_epochs} brought more than half of the examples' contribution in {more} of "
        f"{len(part)} layers"
    )
    if len(part) > 1:
        text += (
            f": most in {part.idxmax()} ({formats.share(part.max())}), least in {part.idxmin()} "
            f"({formats.share(part.min())})"
        )
    else:
        text += f" ({formats.share(part.iloc[0])})"
    above = " Above 100 %: later epochs took some of it away again." if part.max() > 1 else ""
    yield f"{text}.{above}"


def _initial(layers: pd.DataFrame) -> Iterable[str]:
    """Say where the initial weights still hold most."""
    finite = layers[np.isfinite(layers["init_share"].astype(float))]
    value = finite["init_share"].to_numpy(float)
    if not value.any():
        return
    most, least = (finite["layer"].iloc[int(i)] for i in (value.argmax(), value.argmin()))
    text = f"The initial weights, which no example taught, hold {formats.share(value.max())} in {most}"
    if len(value) > 1:
        text += f" (most) and {formats.share(value.min())} in {least} (least)"
    yield f"{text} of the squared norm of the representation."


def _completeness(layers: pd.DataFrame) -> Iterable[str]:
    """Say by how much the named parts miss the whole."""
    finite = layers[np.isfinite(layers["residual_max"].astype(float))]
    if not finite.empty:
        worst = finite.iloc[int(finite["residual_max"].to_numpy(float).argmax())]
        yield (
            f"The named parts add up to the squared norm to within {formats.residual(worst['residual_max'])} of it, "
            f"at the worst query of the worst layer, {worst['layer']}."
        )


def _split(layers: pd.DataFrame) -> Iterable[str]:
    """Say how an update's contribution was split among the examples of its batch."""
    if "split" not in layers or layers.empty:
        return
    own, equal = "by the gradient of each", "equally, since no gradient of each is known or asked for"
    named = layers[layers["split"] != "equal"]["layer"].tolist()
    if len(named) == len(layers):
        yield f"An update's contribution is split among the examples of its batch {own}."
    elif not named:
        yield f"An update's contribution is split among the examples of its batch {equal}."
    else:
        places = f"{own} in {', '.join(named)}; elsewhere {equal}"
        yield f"An update's contribution is split among the examples of its batch {places}."
    partly = layers[layers["split"] == "partly"]["layer"].tolist()
    if partly:
        yield f"In {', '.join(partly)} some updates are not the sum of these gradients, and are split equally."


def _spread(layers: pd.DataFrame) -> Iterable[str]:
    """Say by how much the images of a batch differ, where the part of each is known."""
    if "member_spread" not in layers:
        return
    known = layers[np.isfinite(layers["member_spread"].astype(float))].set_index("layer")
    if known.empty:
        return
    spread, against = known["member_spread"].astype(float), known["member_against"].astype(float)
    most = f"{formats.share(spread.max())} of its size in {spread.idxmax()}"
    least = f" (most) and by {formats.share(spread.min())} in {spread.idxmin()} (least)" if len(spread) > 1 else ""
    yield (
        f"The examples of a batch differ: an example's own part deviates from the equal part by {most}{least}. "
        f"{formats.share(against.mean())} of the parts have the opposite sign of their batch's sum, mean over layers."
    )


def _evaluation(evaluation: pd.DataFrame) -> Iterable[str]:
    """Compare each measure with its baseline, as a difference and without a verdict."""
    for measure, rows in evaluation[evaluation["measure"] != VALIDITY].groupby("measure", sort=False):
        finite = rows[np.isfinite(rows["value"].astype(float))]
        if finite.empty:
            yield f"{measure}: no value is known."
        elif len(finite) == 1:
            yield f"{measure}{_where(finite.iloc[0])}: {_against_baseline(finite.iloc[0])}."
        else:
            low, high = (finite.iloc[int(i)] for i in (finite["value"].argmin(), finite["value"].argmax()))
            yield (
                f"{measure}: between {_against_baseline(low)}{_where(low)} and {_against_baseline(high)}{_where(high)}."
            )


def _against_baseline(row: pd.Series) -> str:
    """Print a value with its spread and how far it lies from its baseline."""
    text, baseline = formats.measure_spread(row["value"], row["spread"]), float(row["baseline"])
    if not np.isfinite(baseline):
        return text
    gap = float(row["value"]) - baseline
    side = "above" if gap > 0 else "below"
    name = f"the {row['baseline_name']}" if row["baseline_name"] else "its baseline"
    printed = formats.measure(baseline)
    return f"{text} ({'equal to' if gap == 0 else f'{formats.measure(abs(gap))} {side}'} {name}, {printed})"


def _where(row: pd.Series) -> str:
    """Name the layer of a measure, or the score of the whole network, if it has one."""
    if isinstance(row["layer"], str) and row["layer"]:
        return f" in {row['layer']}"
    return f" by {row['score']}" if isinstance(row.get("score"), str) and row["score"] else ""
