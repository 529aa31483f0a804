"""What a run made, by kind of stage: digests of bytes, and forms of the values that another processor can compare."""

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from storage.stages import FinishedStage, open_finished
from tasks.cluster.versions import COMPARED, code_facts
from tasks.recording.sources import update_source
from tasks.steps.decomposition.coverage import read_coverage
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

# A digest of bytes, and the form of the values: floats; a list of floats per row; "exact" where only equal bytes will
# do; "open" where rounding decides.
Entry = tuple[str, Any]  # Any: JSON
Kinds = dict[str, dict[str, Any]]  # Any: a version, and entries by name
Values = NDArray[Any]  # Any: dtype

PROJECTIONS = 3
NOISE = 1e-5  # what a distance of nothing may come to
UPDATES, GATED = "training-with-archive", "training-with-gates"
UNGUARDED = {"strongest", "head-cost"}  # sums that the histogram has too; nothing but measured times
SWITCHES = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
)


@dataclass(frozen=True)
class Rule:
    """How far an array may be from the golden one on another processor.

    Parameters
    ----------
    tolerance : relative to the norm, of the whole or of a row
    form : "whole" or "rows" are floats; "sets" rows that are sets of vectors in any order; "exact" or "open"
    rows_off : share of rows that may be anything, where an iteration may end in another optimum
    """

    tolerance: float = 1e-3
    form: str = "whole"
    rows_off: float = 0.0


def rule_of(rules: dict[str, Rule], kind: str, name: str, dtype: np.dtype[Any]) -> Rule:  # Any: dtype
    """Return the first rule whose pattern fits `kind/array`; else whole numbers are exact and floats nearly equal."""
    array = f"{kind}/{name.partition('/')[2]}"
    default = Rule() if dtype.kind == "f" else Rule(form="exact")
    return next((rule for pattern, rule in rules.items() if fnmatchcase(array, pattern)), default)


def environment() -> dict[str, Any]:  # Any: JSON
    """Return what the last bits of a result depend on: versions, processor, kernels, threads."""
    versions, libraries = code_facts(), [x for x in threadpool_info() if x["user_api"] == "blas"]
    return {
        **{name: versions[name] for name in COMPARED},
        "python": platform.python_version(),
        "processor": _processor(),
        "torch instructions": torch.backends.cpu.get_cpu_capability(),
        "numpy instructions": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
        "blas": sorted({f"{x['prefix']} {x['version']} {x.get('architecture')}" for x in libraries}),
        "threads": sorted({torch.get_num_threads(), *(x["num_threads"] for x in libraries)}),
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def _processor() -> list[str]:
    """Return the architecture and what the kernel says of the processor: MKL and oneDNN choose their kernels by it."""
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return [platform.machine(), platform.processor()]
    first = facts.read_text().partition("\n\n")[0]
    return [
        platform.machine(),
        *re.findall(r"^(?:model name|cpu family|model|stepping)\s*: (.*)$", first, re.MULTILINE),
    ]


def digest(values: Values) -> str:
    """Return a hash of bytes, type and shape."""
    return hashlib.sha256(f"{values.dtype} {values.shape}".encode() + values.tobytes()).hexdigest()[:32]


def projected(values: Values) -> list[float]:
    """Return the norm and a few random projections, NaN as 0, to seven digits."""
    flat = np.nan_to_num(values.astype(np.float64)).ravel()
    rng = np.random.default_rng(0)
    found = [np.linalg.norm(flat), *(flat @ rng.standard_normal(flat.size) for _ in range(PROJECTIONS))]
    return [float(f"{number:.7g}") for number in found]


def entry(values: Values, rule: Rule) -> Entry:
    """Return the digest and the form of an array."""
    if rule.form in ("exact", "open"):
        return digest(values), rule.form
    if rule.form == "whole":
        return digest(values), projected(values)
    if rule.form == "sets":  # the sum of products knows no order of the vectors
        return digest(values), [projected(row.T.astype(np.float64) @ row) for row in values]
    if values.ndim == 1:
        return digest(values), [[float(f"{number:.7g}")] for number in np.nan_to_num(values.astype(np.float64))]
    return digest(values), [projected(row) for row in values]


def near(found: Any, golden: Any, rule: Rule) -> bool:  # Any: JSON
    """Say whether two forms are those of the same values on two processors."""
    if rule.form == "whole":
        found, golden = [found], [golden]
    a, b = np.array(found), np.array(golden)
    if a.shape != b.shape:
        return False
    scale = np.maximum(np.abs(b[:, 0]), np.sqrt(np.square(b[:, 0]).mean()))
    off = np.abs(a - b) > NOISE + rule.tolerance * scale[:, None]
    return bool(off.any(axis=1).mean() <= rule.rows_off)


def changes(golden: Kinds, found: Kinds, rules: dict[str, Rule], *, bytewise: bool) -> list[str]:
    """Return a line per kind of stage that makes something else than its golden version did.

    Parameters
    ----------
    golden, found : versions and entries
    rules : by pattern of `kind/array`
    bytewise : the environment is the golden one's; otherwise values are compared by their rule
    """
    lines = []
    for kind in sorted({*golden, *found}):
        if kind not in golden or kind not in found:
            lines.append(f"{kind}: only in the {'run' if kind in found else 'golden file'}; --update-golden")
            continue
        old, new = golden[kind], found[kind]
        names = sorted({*old["arrays"], *new["arrays"]})
        pairs = {name: (new["arrays"].get(name), old["arrays"].get(name)) for name in names}
        differ = [name for name in names if not _same(*pairs[name], rules, kind, name, bytewise)]
        if new["version"] != old["version"]:
            lines.append(f"{kind}: VERSION {old['version']} became {new['version']}; --update-golden")
        elif differ:
            lines.append(f"{kind}: {', '.join(differ)} changed but VERSION {new['version']} did not rise; raise it")
    return lines


def _same(
    found: Entry | None, golden: Entry | None, rules: dict[str, Rule], kind: str, name: str, bytewise: bool
) -> bool:
    """Say whether an array is the golden one."""
    if found is None or golden is None:
        return False
    if bytewise or "exact" in (found[1], golden[1]):
        return found[0] == golden[0]
    if "open" in (found[1], golden[1]):
        return bool(found[1] == golden[1])
    return near(found[1], golden[1], rule_of(rules, kind, name, np.dtype("float64")))


def arrays_of(stage: FinishedStage) -> Iterator[tuple[str, Values]]:
    """Yield a stage's arrays, and the columns of its tables."""
    for name in sorted(stage.layout.arrays):
        values = np.asarray(stage.read(name))
        if name == "values":  # measures of several scales: each by itself
            yield from ((f"{name}:{measure}", values[:, i]) for i, measure in enumerate(stage.summary["measures"]))
        else:
            yield name, values
    for name in (name for name in stage.note["files"] if name.endswith(".parquet")):
        table = pd.read_parquet(Path(stage.store.path(stage.path, "files", name)))
        attempt = re.sub(r"^(segment-\d{6})-\w{8}/", r"\1/", name)  # an attempt has a name of its own
        for column in table.columns:
            values = table[column].to_numpy()
            if column in ("examples", "ghosts", "lrs"):
                values = np.concatenate([np.asarray(row) for row in values])
            text = values.dtype.kind not in "fiub"
            yield (
                f"{attempt}:{column}",
                np.frombuffer("\n".join(map(str, values)).encode(), np.uint8) if text else values,
            )


def updates_of(stage: FinishedStage) -> Iterator[tuple[str, Values]]:
    """Yield the updates that a training recorded, by layer."""
    source = update_source(stage)
    for layer in source.layers:
        blocks = [block for segment in source.segments() for block in source.blocks(segment, [layer])]
        yield f"updates.{layer}", np.concatenate([block.dense().numpy() for block in blocks])


def kinds_of(run: "Run", rules: dict[str, Rule]) -> Kinds:
    """Return VERSION and entries by kind of stage; stages of a kind in the order of their keys."""
    kinds: Kinds = {}
    ordered = sorted(run.plan.stages, key=lambda spec: spec.path)
    for spec in ordered:
        kind = kinds.setdefault(spec.stage, {"version": spec.version, "arrays": {}})
        number = sum(other.stage == spec.stage for other in ordered[: ordered.index(spec)])
        for array, values in arrays_of(open_finished(run.job.store, spec)):
            name = f"{number}/{array}"
            kind["arrays"][name] = entry(values, rule_of(rules, spec.stage, name, values.dtype))
    return kinds


def traced_kinds(run: "Run", rules: dict[str, Rule]) -> Kinds:
    """Return the same of a run of question 4, its trainings with their updates under a name of their own."""
    kinds = kinds_of(run, rules)
    del kinds["manifest"]
    kinds[UPDATES] = kinds.pop("training")
    trainings = {spec for spec in run.plan.stages if spec.stage == "training"}
    for number, training in enumerate(sorted(trainings, key=lambda spec: spec.path)):
        for array, values in updates_of(open_finished(run.job.store, training)):
            name = f"{number}/{array}"
            kinds[UPDATES]["arrays"][name] = entry(values, rule_of(rules, UPDATES, name, values.dtype))
    return kinds


def decomposed_kinds(run: "Run", rules: dict[str, Rule]) -> Kinds:
    """Return the same of a run of question 2: shares in place of coverage's sums, which are digits."""
    kinds = {kind: found for kind, found in kinds_of(run, rules).items() if kind not in {*UNGUARDED, "manifest"}}
    kinds[GATED] = kinds.pop("training")
    for number, one in enumerate(decomposed(run.plan)):
        coverage = read_coverage(run.job.store, one.coverage)
        shares = {"l1": coverage.l1_shares(), "logit": coverage.contribution_shares(), "own": coverage.top_shares()}
        for array, values in shares.items():
            name = f"{number}/{array}"
            kinds["coverage"]["arrays"][name] = entry(values, rule_of(rules, "coverage", name, values.dtype))
    return kinds


def probed_kinds(run: "Run", rules: dict[str, Rule]) -> Kinds:
    """Return the same of a run of question 3, without its manifests, its training, and the weights of snapshots."""
    shared = {"manifest", "training", "snapshots"}
    return {kind: found for kind, found in kinds_of(run, rules).items() if kind not in shared}
