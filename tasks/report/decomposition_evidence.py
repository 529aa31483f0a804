"""Findings on whether the sets are special: controls, noise, retraining and class-specific gates."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.method_bars import NOISES, method_name
from tasks.figures.retraining_curves import curve_of
from tasks.report import formats
from tasks.report.decomposition_claims import Rivals, hurts_more, noise_rows, noise_settings, rivals_of
from tasks.report.decomposition_verdicts import chance, points, verdict


def control_finding(controls: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say which way of choosing the features wins at the main k, and whether chance explains it."""
    rivals = rivals_of(controls, int(network["k2"]), float(network["n_evaluate"]))
    if rivals is None:
        return
    if rivals.others:
        yield _against_the_best(rivals)
    if rivals.random is not None:
        mean, spread, draws = rivals.random
        gap = rivals.own - mean
        limit = 2 * spread if np.isfinite(spread) else chance(rivals.own, mean, rivals.n_images)
        text = f"Random sets of {rivals.k} reach {formats.share_spread(mean, spread)} "
        text += f"({draws} {'draw' if draws == 1 else 'draws'}); Algorithm 1 is {points(gap)} "
        text += "above" if gap >= 0 else "below"
        yield text + (", within chance: it is not shown to be better than random sets." if gap <= limit else ".")


def noise_findings(ablation: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say what noise in influential, in all other and in as many other features does; the authors' noise first."""
    settings = noise_settings(ablation)
    for setting in settings[:1]:
        yield from _one_noise(noise_rows(ablation, *setting), setting, float(network["a_full"]))
    others = settings[1:]
    if not others:
        return
    found = {setting: noise_rows(ablation, *setting) for setting in others}
    turned = [setting for setting in others if hurts_more(found[setting], "others") == "no"]
    weak = [setting for setting in others if hurts_more(found[setting], "equal-size") in ("no", "open")]
    text = f"Of {len(others)} other noises and scopes, those that hurt more in all others than in the influential "
    text += f"features: {_listed(turned)}."
    if any("equal-size" in rows.index for rows in found.values()):
        text += " Those not shown to hurt more in the influential features than in as many others: "
        text += f"{_listed(weak)}."
    yield text


def retraining_findings(rows: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say how much of what decomposing lost comes back."""
    full = float(network["a_full"])
    for scope, name in (("head", "the decomposed head alone, features fixed"), ("network", "the whole network")):
        epochs, accuracy = curve_of(rows, scope, "accuracy")
        if len(epochs) < 2:
            continue
        n = int(epochs[-1])
        before, after = float(accuracy[0]), float(accuracy[-1])
        text = (
            f"Retraining {name}, {n} {'epoch' if n == 1 else 'epochs'}: from {formats.share(before)} to "
            f"{formats.share(after)} (full head {formats.share(full)})"
        )
        if not full > before:
            yield f"{text}; decomposing had lost nothing."
        elif after <= before:
            yield f"{text}: it recovers nothing of the {points(full - before)} lost."
        else:
            part = (after - before) / (full - before)
            more = f"all of the {points(full - before)} lost and {points(after - full)} more"
            less = f"{100 * part:.0f}{formats.NBSP}% of the {points(full - before)} lost"
            yield f"{text}: it recovers {less if after < full else more if after > full else 'all that was lost'}."


def gate_findings(gates: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Set training with class-specific gates beside Algorithm 1."""
    for _, row in gates.iterrows():
        text = (
            f"Trained with class-specific gates, the network classifies {formats.share(float(row['std_accuracy']))} "
            f"of the {row['split']} images without gates and {formats.share(float(row['csg_accuracy']))} with the "
            "gates of the true class, which need the label"
        )
        if np.isfinite(float(row["overlap"])):
            text += f". The sets of the largest gates share {formats.share(float(row['overlap']))} with Algorithm 1's"
        if np.isfinite(float(row["a_decomposed"])):
            text += f"; with them the decomposed head reaches {formats.share(float(row['a_decomposed']))}"
        yield f"{text}."


def _against_the_best(rivals: Rivals) -> str:
    """Set Algorithm 1 beside the best of the other ways, random sets apart."""
    (best, value), n = rivals.others[0], len(rivals.others)
    gap = rivals.own - value
    text = f"With {rivals.k} features per class Algorithm 1 reaches {formats.share(rivals.own)}; "
    text += f"the best of {n} other ways to choose them, " if n > 1 else "the other way to choose them, "
    text += f"{method_name(best)}, {formats.share(value)}. "
    if rivals.state == "open":
        text += f"The difference of {points(gap)} is within chance (two standard errors, {points(rivals.limit)}): "
        return text + "the histogram is not shown to be special."
    if rivals.state == "yes":
        return text + f"The histogram wins by {points(gap)}."
    better = sum(a - rivals.own > chance(rivals.own, a, rivals.n_images) for _, a in rivals.others)
    return text + f"The histogram loses by {points(gap)}; {better} of {n} ways are better beyond chance."


def _one_noise(rows: pd.DataFrame, setting: tuple[str, str], full: float) -> Iterable[str]:
    """Compare the three choices of features for one noise and scope."""
    printed = {w: formats.share_spread(float(r["accuracy"]), float(r["spread"])) for w, r in rows.iterrows()}
    if "influential" not in printed:
        return
    text = f"Noise {_noise_name(*setting)} in the influential features leaves {printed['influential']} correct"
    text += f", in all others {printed['others']}" if "others" in printed else ""
    text += f" (without noise {formats.share(full)}). "
    state = hurts_more(rows, "others")
    if state == "open":
        text += "The difference is within two standard deviations of the draws: the paper's claim is not shown here. "
    elif state:
        text += f"{verdict('noise in the influential features hurts more than in the others', state == 'yes')}. "
    if "equal-size" not in printed:
        yield f"{text}Without the control of equal size this does not tell how many features from which features."
        return
    lost = [points(full - float(rows["accuracy"][which])) for which in ("influential", "equal-size")]
    text += f"In as many other features, drawn at random, it leaves {printed['equal-size']}: feature for feature "
    if hurts_more(rows, "equal-size") == "yes":
        yield f"{text}the influential ones matter more ({lost[0]} lost against {lost[1]})."
    else:
        yield f"{text}the influential ones are not shown to matter more."


def _noise_name(noise: str, scope: str) -> str:
    """Print a noise and its scope."""
    return f"{NOISES.get(noise, noise)} (scope {scope})"


def _listed(settings: list[tuple[str, str]]) -> str:
    """Print noises with their scopes."""
    noises = dict.fromkeys(noise for noise, _ in settings)
    scopes = {noise: ", ".join(scope for each, scope in settings if each == noise) for noise in noises}
    return "; ".join(_noise_name(noise, listed) for noise, listed in scopes.items()) or "none"
