"""Question 4 of a network trained elsewhere: its answers against sums in float64, and what it refuses in one line."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.stages import open_finished
from storage.stores import open_store
from storage.updates.archives import find_archives
from tasks.steps.report import write_report
from tests import own_loop
from tests.flows.command import Write, layerlore, on_commands, refused
from tests.own_loop import OwnLoop
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> OwnLoop:
    """A recorded loop whose ids are sample ids; not to be changed."""
    return own_loop.record(tmp_path_factory.mktemp("loop") / "lore-of-mine")


@pytest.fixture(scope="module")
def answered(loop: OwnLoop, tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """Question 4 of the loop, answered."""
    return new_run(own_loop.config(tmp_path_factory.mktemp("answered") / "store", loop.url)).finish()


def gammas(loop: OwnLoop, keys: list[str], layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """<z, D_t f> (Q, T) of the updates, <z, W_0 f> and ||z||^2 (Q,), in float64 and without the archive."""
    model = own_loop.build()
    model.load_state_dict(loop.states[-1])
    model.double().eval()
    inputs = own_loop.images(keys).double()
    inputs = inputs if layer == "0" else model[:4](inputs)
    kind = nn.Conv2d if layer == "0" else nn.Linear

    def applied(weight: Tensor) -> Tensor:
        return F.conv2d(inputs, weight, padding=1) if kind is nn.Conv2d else inputs @ weight.T

    z = applied(loop.states[-1][f"{layer}.weight"].double())
    products = [(z * applied(change)).flatten(1).sum(1) for change in loop.updates(f"{layer}.weight")]
    start = (z * applied(loop.states[0][f"{layer}.weight"].double())).flatten(1).sum(1)
    return torch.stack(products, 1).detach(), start.detach(), z.square().flatten(1).sum(1).detach()


def without_decay(loop: OwnLoop, gamma: Tensor, start: Tensor) -> Tensor:
    """Gamma without the part of coupled decay: v = mu v + wd w, decay = -lr v."""
    weight, velocity, rows = start.clone(), torch.zeros_like(start), []
    for t in range(gamma.shape[1]):
        velocity = 0.9 * velocity + 1e-3 * weight
        rows.append(gamma[:, t] + 0.05 * velocity)
        weight = weight + gamma[:, t]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("layer", ["0", "4"])
def test_examples_have_the_sums_of_their_updates(loop: OwnLoop, answered: "Run", layer: str) -> None:
    (trace,) = traces(answered.plan)
    queries, influence = (open_finished(answered.job.store, spec) for spec in (trace.queries, trace.influence))
    rows = own_loop.samples("val").set_index("id").loc[queries.read("sample_id").tolist()]
    gamma, start, square = gammas(loop, rows["key"].tolist(), layer)
    credited = without_decay(loop, gamma, start)
    index = influence.summary["layers"].index(layer)
    ids = np.unique(np.concatenate(loop.batches))
    expected = np.zeros((len(rows), len(ids)))
    for t, batch in enumerate(loop.batches):
        expected[:, np.searchsorted(ids, batch)] += credited[:, t].numpy()[:, None] / len(batch)
    scale = float(square.max())
    order = np.sort(expected, axis=1)[:, ::-1]
    np.testing.assert_allclose(influence.read("top_sum")[index], order[:, :10], atol=2e-5 * scale)
    found = influence.read("top_id")[index]
    assert set(found.ravel().tolist()) <= set(ids.tolist())
    named = np.take_along_axis(expected, np.searchsorted(ids, found), axis=1)
    np.testing.assert_allclose(influence.read("top_sum")[index], named, atol=2e-5 * scale)  # the ids of these sums
    parts = dict(zip(influence.summary["parts"], influence.read("parts")[index].T, strict=True))
    np.testing.assert_allclose(parts["init"], start.numpy(), atol=2e-5 * scale)
    np.testing.assert_allclose(parts["examples"], credited.sum(1).numpy(), atol=2e-5 * scale)
    np.testing.assert_allclose(sum(parts.values()), square.numpy(), atol=2e-5 * scale)  # completeness
    by_class = np.stack(
        [credited.numpy()[:, [t for t, c in enumerate(loop.labels) if c == k]].sum(1) for k in range(10)], 1
    )
    np.testing.assert_allclose(influence.read("class_gamma")[index].sum(axis=1), by_class, atol=2e-5 * scale)
    assert {"ridge", "ridge_total"} <= set(influence.layout.arrays)


def test_logits_are_sums_of_their_parts(loop: OwnLoop, answered: "Run") -> None:
    (trace,) = traces(answered.plan)
    queries, influence = (open_finished(answered.job.store, spec) for spec in (trace.queries, trace.influence))
    index = influence.summary["rankings"].index(["4", "logit"])
    whole, logits = influence.read("reference")[index], queries.read("logits")
    np.testing.assert_allclose(whole, logits.max(axis=1), rtol=1e-4, atol=1e-4)


def test_the_report_has_the_images(answered: "Run") -> None:
    (trace,) = traces(answered.plan)
    store = answered.job.store
    write_report(store, answered.plan.made(), created="now", reused=frozenset())
    root = Path(store.root, "reports", "elsewhere")
    page = (root / "tracing.html").read_text()
    influence = open_finished(store, trace.influence)
    assert f"{influence.read('top_id')[0, 0, 0]}" in page
    assert "data:image/png;base64" in page
    assert re.search(r"<td[^>]*>30</td>", page)  # steps
    result = layerlore("explain", store.root, "--query", "1", "--layer", "4", "--count", "2")
    assert result.exit_code == 0, result.output
    assert "query 1 of 4: sample" in result.stdout


def test_ids_are_tied_in_three_ways(loop: OwnLoop, answered: "Run", new_run: NewRun, tmp_path: Path) -> None:
    rows = own_loop.samples("train")
    samples, numbers = rows["id"].to_numpy(np.int64), np.random.default_rng(5).permutation(9000)[: len(rows)]
    order = own_loop.record(tmp_path / "order", lambda ids: np.searchsorted(samples, ids), label=False)
    named = own_loop.record(tmp_path / "named", lambda ids: numbers[np.searchsorted(samples, ids)])
    table = tmp_path / "ids.csv"
    rows.assign(id=numbers)[["id", "key"]].sample(frac=1, random_state=0).to_csv(table, index=False)
    (first,) = traces(answered.plan)
    expected = open_finished(answered.job.store, first.influence)
    for number, (url, how) in enumerate([(order.url, "order"), (named.url, str(table))]):
        run = new_run(own_loop.config(tmp_path / f"store{number}", url, ids=how)).finish()
        (trace,) = traces(run.plan)
        found = open_finished(run.job.store, trace.influence)
        assert set(found.layout.arrays) == set(expected.layout.arrays)  # ridges too, where the loop names no class
        for name in expected.layout.arrays:
            np.testing.assert_array_equal(found.read(name), expected.read(name), err_msg=name)


@pytest.mark.parametrize("kind", ["hybrid", "replay"])
def test_other_kinds_give_the_same_parts(
    loop: OwnLoop, answered: "Run", new_run: NewRun, tmp_path: Path, kind: str
) -> None:
    other = own_loop.record(tmp_path / "other", kind=kind)
    more = {"program": "tests.own_loop:program"} if kind == "replay" else {"split": "train"}
    run = new_run(own_loop.config(tmp_path / "store", other.url, **more)).finish()
    (trace,), (dense,) = traces(run.plan), traces(answered.plan)
    found, expected = open_finished(run.job.store, trace.influence), open_finished(answered.job.store, dense.influence)
    tolerance = (2e-3 if kind == "hybrid" else 1e-6) * expected.read("square").max(axis=1)[:, None, None]
    differences = found.read("parts").astype(np.float64) - expected.read("parts").astype(np.float64)
    assert (np.abs(differences) <= tolerance).all()


def test_the_key_is_that_of_the_archive(loop: OwnLoop, new_run: NewRun, tmp_path: Path) -> None:
    shutil.copytree(loop.url, tmp_path / "moved")
    other = own_loop.record(tmp_path / "other", losses=False)
    plans = [new_run(own_loop.config(tmp_path / "s", url)).plan for url in (loop.url, tmp_path / "moved", other.url)]
    keys = [traces(plan)[0].training.key for plan in plans]
    assert keys[0] == keys[1] != keys[2]


def archive(url: Path) -> Path:
    """The folder of the only archive in a store."""
    (path,) = find_archives(open_store(str(url)))
    return url / path


def cut_ledger(url: Path) -> None:
    """Cut a file in half."""
    file = sorted(archive(url).glob("files/*/ledger.parquet"))[1]
    file.write_bytes(file.read_bytes()[:100])


def cut_checkpoint(url: Path) -> None:
    """Change the last checkpoint without a change of its size."""
    file = sorted(archive(url).glob("files/checkpoint-*"))[-1]
    file.write_bytes(file.read_bytes()[:-1] + b"?")


BAD: list[tuple[str, object, str]] = [
    (
        "networks.mine.weights",
        "a.pt",
        "networks.mine: expected one of `weights`, `train` and `updates`, found weights and updates",
    ),
    (
        "networks.mine.updates",
        7,
        "networks.mine.updates: expected a URL, or a mapping such as {url: lore-of-mine}, found int",
    ),
    (
        "networks.mine.updates",
        "ftp://a/b",
        "networks.mine.updates: expected a local folder, file:///folder or s3://bucket/prefix",
    ),
    ("networks.mine.updates.url", "/nowhere/at/all", "networks.mine.updates: /nowhere/at/all"),
    ("networks.mine.updates.data", "letters", "networks.mine.updates.data: expected one of digits, found 'letters'"),
    ("networks.mine.updates.split", "test", "data.digits: expected one of the splits train, val, found 'test'"),
    ("networks.mine.updates.evaluate", "test", "data.digits: expected one of the splits train, val, found 'test'"),
    (
        "networks.mine.updates.split",
        "val",
        "networks.mine.updates.ids: data digits: expected samples with all 60 ids of the archive, found none with ",
    ),
    (
        "networks.mine.updates.ids",
        "order",
        "networks.mine.updates.ids: data digits: expected samples with all 60 ids of the archive, found none with ",
    ),
    ("networks.mine.updates.ids", "/nowhere.csv", "networks.mine.updates: "),
    ("data.digits.per_class", {"train": 5, "val": 3}, "found none with "),
    (
        "networks.mine.model",
        "tests.own_loop:deep",
        "networks.mine: expected the model of the archive `updates`, with 0.weight of shape (4, 1, 3, 3), found none",
    ),
    (
        "networks.mine.arguments",
        {"width": 5},
        "with 0.weight of shape (4, 1, 3, 3), found it of shape (5, 1, 3, 3); set `model` and `arguments`",
    ),
    ("networks.mine.preprocessing", {}, "networks.mine: "),
    ("tracing.layers", ["9"], "tracing.layers: expected recorded layers (0, 4), found '9'"),
    (
        "tracing.window",
        [60, 70],
        "tracing.window: expected steps that mine records, found none in 60 to 70; it has 30 steps",
    ),
    (
        "tracing.evaluation.lds",
        {},
        "tracing.evaluation.lds: expected networks with `train`, as it asks for retrainings, and its archive",
    ),
    (
        "tracing.evaluation.randomisation",
        True,
        "tracing.evaluation.randomisation: expected networks with `train`, as it asks for another training",
    ),
    (
        "tracing.counterfactual",
        {},
        "tracing.counterfactual: expected networks with `train`, as it asks for steps and retrainings",
    ),
    (
        "tracing.scores",
        ["gamma", "tracin"],
        "tracing.scores: expected networks with `train`, as it asks by tracin for gradients",
    ),
]


@pytest.mark.parametrize(("command", "key", "value", "why"), on_commands(BAD))
def test_a_bad_setting_is_one_line(
    loop: OwnLoop, tmp_path: Path, write: Write, command: str, key: str, value: object, why: str
) -> None:
    tree = own_loop.config(tmp_path / "store", loop.url, ids="id")
    *folders, last = key.split(".")
    place = tree
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = value
    said = refused(layerlore(command, write(tree)))
    assert why in said
    assert len(said.splitlines()) == 1
    assert not Path(tree["store"]).exists()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut_ledger, "bytes, as recorded, found"),
        (cut_checkpoint, "expected the content that was written, found other content"),
        (
            lambda url: sorted(archive(url).glob("files/*/ledger.parquet"))[0].unlink(),
            "expected a file of a closed archive, found none",
        ),
        (
            lambda url: (archive(url) / "markers/complete.json").unlink(),
            "expected a closed archive, found one of 30 steps that is not",
        ),
        (lambda url: shutil.rmtree(url / "updates"), "expected an archive of a recorder, found none"),
    ],
)
def test_a_damaged_archive_is_one_line(
    loop: OwnLoop, tmp_path: Path, write: Write, damage: Callable[[Path], None], why: str
) -> None:
    url = tmp_path / "archive"
    shutil.copytree(loop.url, url)
    damage(url)
    said = refused(layerlore("plan", write(own_loop.config(tmp_path / "store", url))))
    assert said.startswith("networks.mine.updates: ")
    assert why in said
    assert len(said.splitlines()) == 1


def test_an_archive_that_is_not_closed_is_one_line(tmp_path: Path, write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        own_loop.record(tmp_path / "broken", stop=20)
    said = refused(layerlore("plan", write(own_loop.config(tmp_path / "store", tmp_path / "broken"))))
    assert said == (
        f"networks.mine.updates: {tmp_path}/broken: expected a closed archive, found one of 16 steps that is not; go "
        "on with its training and close the recorder"
    )


def test_a_replay_needs_its_program(tmp_path: Path, write: Write) -> None:
    url = own_loop.record(tmp_path / "replay", kind="replay").url
    said = refused(layerlore("plan", write(own_loop.config(tmp_path / "store", url))))
    assert said == (
        "networks.mine.updates: expected a program that makes the steps of a replay archive again, found none; set "
        "`program` to its import path module:function, or convert the archive with `layerlore materialise`"
    )


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_converted_replay_needs_no_program(
    loop: OwnLoop, answered: "Run", new_run: NewRun, tmp_path: Path, write: Write, kind: str
) -> None:
    replay = own_loop.record(tmp_path / "replay", kind="replay")
    made = layerlore("materialise", str(replay.url), "--kind", kind, "--program", "tests.own_loop:program")
    assert made.exit_code == 0, made.output
    run = new_run(own_loop.config(tmp_path / "store", replay.url)).finish()
    (trace,), (dense,) = traces(run.plan), traces(answered.plan)
    found, expected = open_finished(run.job.store, trace.influence), open_finished(answered.job.store, dense.influence)
    tolerance = (2e-3 if kind == "hybrid" else 1e-6) * expected.read("square").max(axis=1)[:, None, None]
    differences = found.read("parts").astype(np.float64) - expected.read("parts").astype(np.float64)
    assert (np.abs(differences) <= tolerance).all()
    assert trace.training.place["archive"]["kind"] == kind
    with_program = new_run(own_loop.config(tmp_path / "other", replay.url, program="tests.own_loop:program")).plan
    assert traces(with_program)[0].training.key != trace.training.key  # the program's own steps, bit for bit
    shutil.rmtree(replay.url / "materialised")
    said = refused(layerlore("run", write(own_loop.config(tmp_path / "late", replay.url))))
    assert "expected a program that makes the steps of a replay archive again, found none" in said


@pytest.mark.parametrize("key", ["tracing.suspects", "tracing.evaluation.mislabel"])
def test_a_loop_without_losses_has_no_suspects(tmp_path: Path, write: Write, key: str) -> None:
    tree = own_loop.config(tmp_path / "store", own_loop.record(tmp_path / "silent", losses=False).url)
    tree["tracing"] |= {"suspects": 3} if key == "tracing.suspects" else {"evaluation": {"mislabel": True}}
    said = refused(layerlore("plan", write(tree)))
    assert said.startswith(f"{key}: expected the loss of every step in the archive of 'mine', found steps without one")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("number,key\n1,2\n", "expected a table with the columns id (integers) and key, found number, key"),
        ("id,key\n0,a\n0,b\n", "expected each id once in the table, found 0 twice"),
        ("id,key\n99999,a\n", "expected all ids of the archive in the table, found none with "),
    ],
)
def test_a_bad_table_of_ids_is_one_line(loop: OwnLoop, tmp_path: Path, write: Write, text: str, why: str) -> None:
    (tmp_path / "ids.csv").write_text(text)
    tree = own_loop.config(tmp_path / "store", loop.url, ids=str(tmp_path / "ids.csv"))
    said = refused(layerlore("plan", write(tree)))
    assert said.startswith("networks.mine.updates.ids: data digits: ")
    assert why in said


def test_a_key_that_no_sample_has_is_one_line(loop: OwnLoop, tmp_path: Path, write: Write) -> None:
    table = own_loop.samples("train")[["id", "key"]]
    table.assign(key=["none" if i == 0 else key for i, key in enumerate(table["key"])]).to_csv(tmp_path / "ids.csv")
    tree = own_loop.config(tmp_path / "store", loop.url, ids=str(tmp_path / "ids.csv"))
    said = refused(layerlore("plan", write(tree)))
    assert said.endswith("expected samples with all keys of the table, found none with 'none'")


def test_any_sample_is_explained_from_the_archive(answered: "Run") -> None:
    store = answered.job.store.root
    rows = own_loop.samples("val")
    result = layerlore("explain", store, "--sample", str(rows["id"].iloc[2]), "--layer", "4", "--count", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "mine, from its archive"
    assert f"sample {rows['id'].iloc[2]} of split val" in result.stdout
