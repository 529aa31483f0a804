"""Tests of `benchmarks/scale.py` at toy size: what it writes is what the stages read, what it measures is there."""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale_data import class_sizes, make_pictures, make_weights
from benchmarks.scale_overhead import together
from benchmarks.scale_pieces import PIECES, Here, config_of, opened, planned, selections
from benchmarks.scale_watch import Line, slope, watch
from storage.stages import open_finished
from storage.verify import verify_stage
from tasks.steps.interpretation.selection import kept_positions

SIZES = [5, 11, 12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights, and two data sets: three classes, and the first two of them."""
    root = tmp_path_factory.mktemp("scale")
    make_weights(root / "resnet50.pth", "resnet50")
    make_pictures(root / "all" / "data", np.array(SIZES))
    make_pictures(root / "two" / "data", np.array(SIZES[:2]))
    return root


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Here]:
    """The larger data set, its activations written and its coresets selected."""
    with opened(config_of(folder / "all", workers=1, memory="4GB", kind="serial")) as opened_here:
        for piece in ("manifest", "write activations", "selection"):
            PIECES[piece](opened_here)
        yield opened_here


def test_classes_are_imagenets() -> None:
    sizes = class_sizes()
    assert (sizes.sum(), sizes.min(), sizes.max(), len(sizes)) == (1_281_167, 732, 1300, 1000)
    assert (sizes == 1300).sum() == 895
    assert class_sizes(80_073, 1000).sum() == 80_073
    with pytest.raises(ValueError, match="3 samples do not make 4 classes"):
        class_sizes(3, 4)


def test_coresets_are_those_of_brute_force(here: Here) -> None:
    pooled = open_finished(here.job.store, here.activations).read("pooled").astype(np.float64)
    ends = np.cumsum([0, *SIZES])
    specs = selections(here.plan)
    assert len(specs) == 5 * 5 + 5 + 1  # five draws and one moderate coreset of five budgets, and everything
    for spec in specs:
        stage, budget = open_finished(here.job.store, spec), float(spec.parameters["budget"])
        for label, (start, n) in enumerate(zip(ends, SIZES, strict=False)):
            rows = pooled[start : start + n]
            if budget == 1.0:
                expected = np.arange(n)
            elif spec.parameters["selector"] == "random":
                seed = [0, spec.parameters["repeat"], label]
                expected = np.random.default_rng(seed).permutation(n)[: max(1, round(budget * n))]
            else:
                far = [float(np.sqrt(sum((row - rows.mean(axis=0)) ** 2))) for row in rows]
                order = sorted(range(n), key=lambda row: far[row])
                low, high = round(n * (0.5 - budget / 2)), round(n * (0.5 + budget / 2))
                expected = np.array(order[low:high] or [order[n // 2]])
            np.testing.assert_array_equal(kept_positions(stage)[label], start + expected)


def test_features_are_of_a_class_and_hardly_compress(here: Here) -> None:
    stage = open_finished(here.job.store, here.activations)
    pooled = stage.read("pooled").astype(np.float64)
    means = np.stack([part.mean(axis=0) for part in np.split(pooled, np.cumsum(SIZES)[:-1])])
    distances = np.linalg.norm(pooled[:, None] - means, axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), np.repeat([0, 1, 2], SIZES))
    assert stage.store.size(stage.shard_path("pooled", 0)) > 0.75 * 2 * pooled.size


def test_linked_shards_are_those_that_would_be_written(folder: Path, here: Here) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "data").symlink_to(folder / "all" / "data")
    donor = None
    for name in ("all", "linked"):  # the donor of the second is the first: everything is linked
        config = config_of(folder / name, workers=1, memory="4GB", kind="serial")
        with opened(config, donor) as again:
            if donor is not None:
                PIECES["manifest"](again)
                PIECES["write activations"](again)
            donor = again.job.store
    assert again.activations.path == here.activations.path
    written, linked = (open_finished(job.store, here.activations) for job in (here.job, again.job))
    assert linked.note["arrays"] == written.note["arrays"]
    assert not list(verify_stage(again.job.store, linked.path))
    shards = [Path(one.store.path(one.shard_path("pooled", 0))) for one in (written, linked)]
    assert shards[0].samefile(shards[1])


def test_streams_give_the_numbers_of_one_shot_forms(here: Here) -> None:
    PIECES["write penultimate"](here)
    features = here.features().read("features").astype(np.float64)
    assert PIECES["exact sums"](here)["total"] == pytest.approx(features.sum(), rel=1e-12)
    assert PIECES["trace"](here)["steps"] == 1


def test_everything_is_to_do_again_without_work(here: Here) -> None:
    items = together(here)
    assert len(items) == 2  # 31 coresets, at most 16 in one partition's work
    assert sum(len(item.work.stages) for item in items) == 31


@pytest.mark.slow
def test_a_plan_is_timed(folder: Path) -> None:
    line = planned(config_of(folder / "two", workers=1, memory="4GB", kind="serial"))
    assert line["stages"] > 100
    assert line["cpu"] > 0


def test_exponents_are_found() -> None:
    sizes = [10.0, 100.0, 1000.0]
    assert slope(sizes, [3 * n**2 for n in sizes]) == pytest.approx((2, 0), abs=1e-6)
    # By hand: logarithms 0, 1, 3 at -1, 0, 1: slope 3/2, residuals 1/6, -1/3, 1/6, of one degree of freedom.
    assert slope(sizes, [1, 10, 1000]) == pytest.approx((1.5, (1 / 6 / 2) ** 0.5))
    assert np.isnan(slope([10.0, 20.0], [1.0, 2.0])).all()


def test_peaks_are_those_of_the_child_and_the_limit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greedy.py").write_text(
        "import subprocess, sys\n"
        "if sys.argv[1] == 'child':\n"
        "    held = bytearray(300_000_000); held[::4096] = bytes(len(held[::4096])); print(len(held)); input()\n"
        "    sys.exit()\n"
        "child = subprocess.Popen([sys.executable, __file__, 'child'], stdin=-1, stdout=-1, text=True)\n"
        "if not child.stdout.readline(): sys.exit(3)\n"
        "import time; time.sleep(0.5); print('{\"piece\": 1}', flush=True)\n"
        "child.communicate('\\n'); print('{\"piece\": 2}')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first, second = watch("greedy", ["parent"], tmp_path / "log")
    assert (first["piece"], second["piece"]) == (1, 2)
    assert first["worker"] > 280
    assert first["together"] > 285 > 100 > first["main"]
    with pytest.raises(RuntimeError, match=r"held \d+ MB, 200 are allowed"):
        list(watch("greedy", ["parent"], tmp_path / "log", limit=200))


def test_tables_have_a_line_per_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = scale.sizes_of(160_000, 1000, 2)
    assert [size.classes for size in sizes] == [250, 500, 1000, 1000]
    assert [size.classes for size in scale.sizes_of(1_281_167, 1000, 4)] == [62, 125, 1000, 250, 500, 1000, 1000]
    rows: list[Line] = [
        {**vars(size), "piece": piece, "wall": 1.0, "cpu": size.samples / 1e4, "read": 1e9, "main": 400.0}
        | {"worker": 300.0, "together": 1000.0}
        for size in sizes
        for piece in ("plan", *PIECES)
    ]
    rows.append({"piece": "overhead", "pool": "serial", "what": "nothing", "items": 10, "wall": 0.002, "cpu": 0.001})
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    scale.main(["--again", str(tmp_path / "rows"), "--figures", str(tmp_path)])
    shown = capsys.readouterr().out
    assert shown.count("| selection | fewer classes | ") == 4  # three sizes, one line of exponents
    assert "| selection | fewer classes | 1.00 ± 0.00 | 0.00 ± 0.00 | 0.00 ± 0.00 | 1000 |" in shown
    assert "| serial | nothing | 10 | 2.00 | 1.00 |  |" in shown
    assert {path.name for path in tmp_path.glob("*.png")} == {"scale-time.png", "scale-memory.png"}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_whole_measurement_runs(tmp_path: Path) -> None:
    options = Namespace(samples=400, classes=4, halvings=1, workers=2, memory="3GB", limit=8000)
    rows = list(scale.run(tmp_path, options))
    for piece in ("plan", "selection", "coverage"):
        assert [row["classes"] for row in rows if row["piece"] == piece] == [2, 4, 4]
    assert all(row["together"] > row["worker"] > 0 for row in rows if row["piece"] == "selection")
    assert {row["pool"] for row in rows if row["piece"] == "overhead"} == {"serial", "threads", "local"}
