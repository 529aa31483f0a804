"""The shallow twin of a network: whether fewer layers are as good, next to the layers that no class owns."""

import numpy as np
import pandas as pd

from tasks.report import formats

ALIKE = ("model", "data")  # columns in which twins agree; a twin has fewer layers


def twin_of(networks: pd.DataFrame, network: str) -> str:
    """Return the network with the fewest layers among those of the same model and training data, "" without one.

    Parameters
    ----------
    networks : as `TracingResults` describes them
    """
    if not {"layers", "accuracy", *ALIKE} <= set(networks.columns):
        return ""
    first = networks.drop_duplicates("network").set_index("network")
    own = first.loc[network]
    alike = first[(first[list(ALIKE)] == own[list(ALIKE)]).all(axis=1) & (first["layers"] < own["layers"])]
    return "" if alike.empty else str(alike["layers"].idxmin())


def twin_sentence(networks: pd.DataFrame, network: str, seed: int) -> str:
    """Compare the accuracy of a network and its shallow twin, of one seed and over all; "" without a twin."""
    twin = twin_of(networks, network) if len(networks) and (networks["network"] == network).any() else ""
    if not twin:
        return ""
    table = networks.pivot_table("accuracy", "seed", "network", aggfunc="first")
    pairs = table.reindex(columns=[network, twin]).astype(float).dropna()
    if seed not in pairs.index:
        return ""
    layers = networks.drop_duplicates("network").set_index("network")["layers"]
    deep, shallow = (float(pairs[name].to_numpy(float)[pairs.index.get_loc(seed)]) for name in (network, twin))
    text = (
        f" Its shallow twin {twin} has {layers[twin]} traced layers in place of {layers[network]}. Its accuracy is "
        f"{formats.share(shallow)} against {formats.share(deep)}"
    )
    if len(pairs) < 2:
        return f"{text}."
    means = [formats.share_spread(float(pairs[name].mean()), float(pairs[name].std())) for name in (twin, network)]
    gap = pairs[twin] - pairs[network]
    error = float(gap.std()) / np.sqrt(len(gap))
    verdict = (
        "the difference is within two standard errors"
        if abs(float(gap.mean())) <= 2 * error
        else f"the twin is {'better' if gap.mean() > 0 else 'worse'} by more than two standard errors"
    )
    return f"{text}; over {len(pairs)} seeds {means[0]} against {means[1]}, and {verdict}."
