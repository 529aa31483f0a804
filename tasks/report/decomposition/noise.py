"""Findings on noise in place of features, and what remains unknown where a control is missing."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.decomposition.method_bars import NOISES, spreads
from tasks.report import formats
from tasks.report.decomposition.verdicts import chance_of_draws, points, verdict

AUTHORS_NOISE = ("standard", "label")
NO_CONTROL = "no control of equal size"
TOO_WIDE = "the sets hold more than half of the features"
UNSEPARATED = "Without a control of equal size the effect of which features cannot be separated from that of how many."

Setting = tuple[str, str]  # noise and scope


def noise_settings(ablation: pd.DataFrame) -> list[Setting]:
    """Return noise and scope of every setting, the authors' first."""
    rows = ablation[np.isfinite(ablation["accuracy"].astype(float))]
    settings = list(dict.fromkeys(zip(rows["noise"].astype(str), rows["scope"].astype(str), strict=True)))
    return sorted(settings, key=lambda setting: setting != AUTHORS_NOISE)


def noise_rows(ablation: pd.DataFrame, setting: Setting, network: pd.Series) -> pd.DataFrame:
    """Return accuracy and spread of one noise and scope by `which`, without all others where there are none."""
    rows = ablation[np.isfinite(ablation["accuracy"].astype(float))]
    rows = rows.assign(spread=spreads(rows))
    noise, scope = setting
    rows = rows[(rows["noise"] == noise) & (rows["scope"] == scope)].drop_duplicates("which").set_index("which")
    empty = _n_replaced(network, scope) >= float(network["n_features"])
    return rows.drop(index="others", errors="ignore") if empty else rows


def hurts_more(rows: pd.DataFrame, rival: str, n_images: float) -> str:
    """Say whether noise in the influential features hurts more: "yes", "no", "open" within chance, "" unknown."""
    if not {"influential", rival} <= set(rows.index):
        return ""
    gap = float(rows["accuracy"][rival]) - float(rows["accuracy"]["influential"])
    if not abs(gap) > _limit(rows, rival, n_images):
        return "open"
    return "yes" if gap > 0 else "no"


def has_no_control(network: pd.Series, scope: str) -> bool:
    """Say whether there cannot be a control of equal size: more than half of the features are replaced."""
    return 2 * _n_replaced(network, scope) > float(network["n_features"])


def noise_findings(ablation: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say what noise in influential, in all other and in as many other features does; the authors' noise first."""
    settings = noise_settings(ablation)
    for setting in settings[:1]:
        yield from _one_noise(noise_rows(ablation, setting, network), setting, network)
    n_images = float(network["n_evaluate"])
    rows_by_setting = {setting: noise_rows(ablation, setting, network) for setting in settings[1:]}
    sentences = []
    states = {
        setting: state for setting, rows in rows_by_setting.items() if (state := hurts_more(rows, "others", n_images))
    }
    if states:
        turned = [setting for setting, state in states.items() if state == "no"]
        sentences.append(
            f"Of {len(states)} other noises and scopes, these hurt more in all others than in the influential "
            f"features: {_listed(turned)}."
        )
    states = {
        setting: state
        for setting, rows in rows_by_setting.items()
        if (state := hurts_more(rows, "equal-size", n_images))
    }
    if states:
        weak = [setting for setting, state in states.items() if state != "yes"]
        sentences.append(
            "These are not shown to hurt more in the influential features than in as many others: "
            + f"{_listed(weak)}."
        )
    if without := [s for s in rows_by_setting if s not in states and has_no_control(network, s[1])]:
        sentences.append(f"{_listed(without)}: {NO_CONTROL}: {TOO_WIDE}.")
    if sentences:
        yield " ".join(sentences)


def _n_replaced(network: pd.Series, scope: str) -> float:
    """How many features noise in the influential ones replaces; NaN where it is unknown."""
    return float(network["union"] if scope == "union" else network["k2"])


def _limit(rows: pd.DataFrame, rival: str, n_images: float) -> float:
    """Return by how much the accuracies may differ by chance."""
    influential, others = (
        (float(rows["accuracy"][which]), float(rows["spread"][which])) for which in ("influential", rival)
    )
    return chance_of_draws(influential, others, n_images)


def _one_noise(rows: pd.DataFrame, setting: Setting, network: pd.Series) -> Iterable[str]:
    """Compare the three choices of features for one noise and scope."""
    full, n_images = float(network["a_full"]), float(network["n_evaluate"])
    printed = {w: formats.share_spread(float(r["accuracy"]), float(r["spread"])) for w, r in rows.iterrows()}
    if "influential" not in printed:
        return
    text = f"Noise {_noise_name(*setting)} in the influential features leaves {printed['influential']} correct"
    text += f", in all others {printed['others']}" if "others" in printed else ""
    text += f" (without noise {formats.share(full)}). "
    state = hurts_more(rows, "others", n_images)
    if state == "open":
        limit = points(_limit(rows, "others", n_images))
        text += f"The difference is within chance (images and draws, {limit}): the paper's claim is not shown here. "
    elif state:
        text += f"{verdict('noise in the influential features hurts more than in the others', state == 'yes')}. "
    if "equal-size" not in printed:
        why = f"There is {NO_CONTROL}: {TOO_WIDE}. " if has_no_control(network, setting[1]) else ""
        yield f"{text}{why}{UNSEPARATED}"
        return
    lost = [points(full - float(rows["accuracy"][which])) for which in ("influential", "equal-size")]
    text += f"In as many other features, drawn at random, it leaves {printed['equal-size']}: feature for feature "
    if hurts_more(rows, "equal-size", n_images) == "yes":
        yield f"{text}the influential ones matter more ({lost[0]} lost against {lost[1]})."
    else:
        yield f"{text}the influential ones are not shown to matter more."


def _noise_name(noise: str, scope: str) -> str:
    """Print a noise and its scope."""
    return f"{NOISES.get(noise, noise)} (scope {scope})"


def _listed(settings: list[Setting]) -> str:
    """Print noises with their scopes."""
    noises = dict.fromkeys(noise for noise, _ in settings)
    scopes = {noise: ", ".join(scope for each, scope in settings if each == noise) for noise in noises}
    return "; ".join(_noise_name(noise, listed) for noise, listed in scopes.items()) or "none"
