"""The headline findings of the decomposition page: sentences computed from its tables, no stronger than the numbers."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.decomposition.depth import FamilyLine, family_lines
from tasks.report import formats
from tasks.report.decomposition.claims import ENOUGH, grid_test, is_few
from tasks.report.decomposition.cost import cost_findings
from tasks.report.decomposition.evidence import control_finding, gate_findings, retraining_findings
from tasks.report.decomposition.noise import noise_findings
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.decomposition.sets import class_findings, coverage_finding, overlap_finding, sample_finding
from tasks.report.decomposition.verdicts import mean_chance, points, verdict
from tasks.report.findings import Finding


def network_findings(results: DecompositionResults) -> list[Finding]:
    """State what the tables of one network and seed show.

    Parameters
    ----------
    results : of one network and seed

    Returns
    -------
    findings on accuracy, warnings, grid, coverage, controls, noise, retraining, sets, gates and cost, in this order
    """
    if results.networks.empty:
        return []
    network = results.networks.iloc[0]
    findings = [Finding("Few features", text) for text in _few_features(network)]
    findings += [Finding("Warning", text) for text in _warnings(network)]
    findings += [Finding("k1 and k2", text) for text in _grid(results.grid, network)]
    findings += [Finding("Coverage", text) for text in coverage_finding(results.coverage, str(network["k1"]))]
    findings += [Finding("Controls", text) for text in control_finding(results.controls, network)]
    findings += [Finding("Noise", text) for text in noise_findings(results.ablation, network)]
    findings += [Finding("Retraining", text) for text in retraining_findings(results.retraining, network)]
    findings += [Finding("Classes", text) for text in class_findings(results.classes)]
    findings += [Finding("Overlap", text) for text in overlap_finding(network)]
    findings += [Finding("Images", text) for text in sample_finding(results.sample_need)]
    findings += [Finding("CSG", text) for text in gate_findings(results.gates, network)]
    return findings + [Finding("Cost", text) for text in cost_findings(results.head_times, network)]


def family_findings(networks: pd.DataFrame) -> list[Finding]:
    """State whether r_A grows and overlap falls with depth, for each family with networks of two depths."""
    findings = []
    lines = [line for line in family_lines(networks, "ratio") if len(np.unique(line.depth)) > 1]
    overlaps = {line.name: line for line in family_lines(networks, "overlap_mean")}
    for line in lines:
        n_images = networks.loc[networks["network"].isin(line.networks), "n_evaluate"].min()
        full = networks.loc[networks["network"].isin(line.networks), "a_full"].mean()
        findings.append(Finding("Depth", _grows(line, _ratio_chance(line, float(full), float(n_images)))))
        if line.name in overlaps and len(overlaps[line.name].mean) > 1:
            findings.append(Finding("Depth", _overlap_by_depth(overlaps[line.name])))
    return findings


def _few_features(network: pd.Series) -> Iterable[str]:
    """Compare the accuracy with few features with the full head's."""
    k2, d, ratio = int(network["k2"]), int(network["n_features"]), float(network["ratio"])
    if not np.isfinite(ratio):
        return
    text = (
        f"With {k2} of {d:,} features for each class the network classifies {formats.share(network['a_decomposed'])} "
        f"of {int(network['n_evaluate']):,} {network['evaluate']} images correctly. With all {d:,} features it "
        f"classifies {formats.share(network['a_full'])}: r_A = {formats.measure(ratio)}"
    )
    if np.isfinite(float(network["agreement"])):
        text += f". Both predict the same class for {formats.share(network['agreement'])}"
    if not is_few(network):
        yield (
            f"{text}. These are more than half of the features: the paper's claim that few filters suffice is not "
            "tested."
        )
        return
    yield (
        f"{text}. {verdict('few filters suffice', ratio >= ENOUGH)}. An r_A of {ENOUGH} counts as enough; this is this "
        "report's yardstick."
    )


def _warnings(network: pd.Series) -> Iterable[str]:
    """Warn of outputs without images, of features below zero and of ties at the cut."""
    absent = float(network["n_outputs"]) - float(network["n_classes"])
    if absent > 0:
        yield (
            f"{int(absent):,} of {int(network['n_outputs']):,} outputs have no images in {network['learn']}: their "
            "sets are arbitrary. A_d includes them, and noise leaves them alone."
        )
    if pd.notna(network["signed"]) and network["signed"] and network["rank_by"] == "abs":
        yield (
            "Some features are negative, and they are ranked by |x|. A large negative feature may speak against the "
            "class whose set has it. Rank by value or contribution to leave these out."
        )
    ties, n = float(network["ties"]), int(network["n_classes"])
    if ties > 0:
        yield (
            f"In {int(ties):,} of {n:,} classes there is a tie at the cut: the last feature of the set and the first "
            "one outside have equal counts. The larger sum decided, then the lower index."
        )


def _grid(grid: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say how often k2 = k1 is best, for fixed k1 and for fixed k2, and by how much it is missed."""
    d = float(network["n_features"])
    test = grid_test(grid, float(network["n_evaluate"]), d)
    if test is None:
        return
    sentences = [
        f"with {fixed} fixed the best {free} tried is {fixed} itself in {best} of {n} {'case' if n == 1 else 'cases'}"
        for fixed, free, best, n in test.cases
    ]
    text = f"{'; '.join(sentences)}. "
    if test.worst is not None:
        fixed, free, value, best_at, top = test.worst
        text += (
            f"Largest miss: with {fixed} = {value}, {free} = {best_at} gives {formats.share(top)}, "
            f"{points(test.gap)} more than {free} = {value}. "
        )
    if test.state == "open":
        text += f"That is within chance (two standard errors, {points(test.limit)}): the claim is not refuted here. "
    else:
        text += f"{verdict('k2 = k1 is best', test.state == 'yes')}. "
    accuracy, k1, k2 = test.best
    text += f"Best of the grid: {formats.share(accuracy)} at k1 = {k1}, k2 = {k2}."
    if (grid["k2"].astype(float) >= d).any():
        text += f" Cells with k2 = {int(d):,} are the full head and take no part."
    yield f"{text[0].upper()}{text[1:]}"


def _grows(line: FamilyLine, limit: float) -> str:
    """Say at how many steps of depth r_A grows, and what the ends are."""
    listed = ", ".join(f"{n} {formats.measure(m)}" for n, m in zip(line.networks, line.mean, strict=True))
    order = np.unique(line.depth)
    means = np.array([line.mean[line.depth == depth].mean() for depth in order])
    steps = np.diff(means)
    grown = int((steps > 0).sum())
    text = f"r_A by depth, {line.name}: {listed}. It grows at {grown} of {len(steps)} steps"
    gap = f"{formats.measure(abs(means[-1] - means[0]))} {'higher' if means[-1] >= means[0] else 'lower'}"
    text += f"; the deepest is {gap} than the shallowest. {verdict('r_A grows with depth', grown == len(steps))}"
    if grown == len(steps) and steps.min() <= limit:
        text += f", though the smallest step is within chance (two standard errors, {formats.measure(limit)})"
    elif grown < len(steps) and -steps.min() <= limit:
        text += f", though no fall exceeds chance (two standard errors, {formats.measure(limit)})"
    return f"{text}."


def _ratio_chance(line: FamilyLine, a_full: float, n_images: float) -> float:
    """Two standard errors of the difference of two r_A."""
    return mean_chance(float(line.mean.mean()) * a_full, n_images) / a_full if a_full > 0 else float("nan")


def _overlap_by_depth(line: FamilyLine) -> str:
    """Say how the overlap of the sets changes with depth."""
    first, last = line.mean[0], line.mean[-1]
    word = "falls" if last < first else "rises" if last > first else "stays"
    return (
        f"Mean overlap of the sets of two classes, {line.name}: it {word} from {formats.share(first)} in "
        f"{line.networks[0]} to {formats.share(last)} in {line.networks[-1]}."
    )
