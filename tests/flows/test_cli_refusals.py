"""What commands refuse before anything is written: an exit code, one line that says why, and no store."""

import re
import shutil
from pathlib import Path

import pytest

from flows import exits
from tests.flows.command import Tree, Write, layerlore, on_commands, refused

pytestmark = pytest.mark.usefixtures("wide")


@pytest.mark.parametrize(
    ("command", "override", "expected"),
    on_commands(
        [
            ("nonsense=1", "nonsense: unknown key"),
            ("seeds=zero", "seeds: input should be a valid tuple, found 'zero'"),
            (
                "networks.small.weights=w.pt",
                "networks.small: expected one of `weights`, `train` and `updates`, found weights and train",
            ),
            (
                "interpretation.selectors={rndm: {}}",
                "interpretation.selectors.rndm: expected one of random, moderate, dgpruning, found 'rndm'",
            ),
            (
                "interpretation.interpreters={nmf: {}}",
                "interpretation.interpreters.nmf: expected one of ice, vebi, topics, found 'nmf'",
            ),
            (
                "interpretation.selectors={moderate: {centre: mean}}",
                "interpretation.selectors.moderate.centre: unknown parameter; known: center, min_per_class, repeats, "
                "scope",
            ),
            (
                "interpretation.selectors={random: {repeats: 0}}",
                "random.repeats: expected an integer of at least 1, found 0",
            ),
            (
                "interpretation.selectors={random: {repeats: true}}",
                "random.repeats: expected an integer of at least 1, found True",
            ),
            (
                "interpretation.selectors={moderate: {repeats: 3}}",
                "selectors.moderate.repeats: expected 1, as moderate chooses the same each time, found 3",
            ),
            ("interpretation.selectors={random: {seed: 1}}", "interpretation.selectors.random.seed: unknown parameter"),
            ("interpretation.selectors={moderate: {center: middle}}", "interpretation.selectors.moderate: center"),
            ("interpretation.selectors={moderate: {center: [mean]}}", "interpretation.selectors.moderate: center"),
            (
                "interpretation.selectors={moderate: {scope: all}}",
                "interpretation.selectors.moderate.scope: expected class or dataset, found 'all'",
            ),
            ("interpretation.selectors={random: {scope: dataset}}", "selectors.random.scope: unknown parameter"),
            (
                "interpretation.selectors={dgpruning: {scale: mean}}",
                "interpretation.selectors.dgpruning: scale: expected 'none' or 'median', found 'mean'",
            ),
            (
                "interpretation.selectors={moderate: {min_per_class: x}}",
                "interpretation.selectors.moderate: min_per_class",
            ),
            (
                "interpretation.interpreters={ice: {component: 3}}",
                "interpretation.interpreters.ice.component: unknown parameter; known: components",
            ),
            ("interpretation.interpreters={ice: {components: 0}}", "interpretation.interpreters.ice: components"),
            ("interpretation.interpreters={ice: {components: few}}", "interpretation.interpreters.ice: components"),
        ],
        "run",
        "report",
    ),
)
def test_a_bad_config_is_one_line_and_writes_nothing(
    write: Write, tiny_tree: Tree, command: str, override: str, expected: str
) -> None:
    result = layerlore(command, write(tiny_tree), "--set", override)
    assert expected in refused(result)
    assert not Path(tiny_tree["store"]).exists()


@pytest.mark.parametrize(
    ("command", "key", "value", "expected"),
    on_commands(
        [
            ("interpretation.learn", "trian", "data.digits: expected one of the splits train, val, found 'trian'"),
            (
                "networks.small.train.split",
                "trian",
                "data.digits: expected one of the splits train, val, found 'trian'",
            ),
            (
                "networks.small.train.evaluate",
                "test",
                "data.digits: expected one of the splits train, val, found 'test'",
            ),
            ("interpretation.layer", "conv9", "networks.small: "),
            (
                "interpretation.layer",
                "penultimate",
                "layer 'penultimate': expected maps, found features of shape",
            ),
            ("networks.small.model", "small-cn", "networks.small: "),
            ("networks.small.model", "nowhere:net", "nowhere"),
            ("networks.small.arguments", {"widht": 4}, "networks.small: "),
            ("networks.small.arguments", {"classes": 5}, "networks.small: "),
            ("networks.small.preprocessing", {"mode": "RGB"}, "networks.small: "),
            ("networks.small.preprocessing", "ResNet50_Weights.NONE", "ResNet50_Weights.NONE"),
            ("data.digits", {"source": "npz", "paths": {"train": "no.npz", "val": "no.npz"}}, "no.npz"),
            ("data.digits", {"source": "image-folder", "paths": {"train": "/no/t", "val": "/no/v"}}, "/no/t"),
            ("data.digits", {"source": "import", "object": "nowhere:data"}, "nowhere"),
            ("cluster.memory_limit", "300MB", "cluster.memory_limit: expected at least "),
        ]
    ),
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    write: Write, tiny_tree: Tree, command: str, key: str, value: object, expected: str
) -> None:
    *parents, last = key.split(".")
    below = tiny_tree
    for parent in parents:
        below = below[parent]
    below[last] = value
    assert expected in refused(layerlore(command, write(tiny_tree)))
    assert not Path(tiny_tree["store"]).exists()


CLUSTERS: list[tuple[Tree, str]] = [
    *(
        (
            {"kind": kind, "device": "cuda"},
            "cluster.device: expected a usable GPU for cuda, found none; set it to auto or cpu",
        )
        for kind in ("serial", "threads", "local")
    ),
    *(
        ({"kind": kind, "gpu_resource": "GPU"}, f"cluster.gpu_resource: expected none with kind {kind}, found 'GPU'")
        for kind in ("serial", "threads", "local")
    ),
    ({"kind": "os.system"}, "cluster.kind: expected a class of Dask clusters, found os.system"),
    ({"kind": "pathlib.Path"}, "cluster.kind: expected a class of Dask clusters, found pathlib.Path"),
    (
        {"kind": "local", "arguments": {"proceses": True}},
        "cluster.arguments.proceses: expected an argument of LocalCluster, "
        "found an unknown one; did you mean processes?",
    ),
    (
        {"kind": "threads", "arguments": {"zzz": True}},
        "cluster.arguments.zzz: expected an argument of LocalCluster, found an unknown one",
    ),
]


@pytest.mark.parametrize(("command", "cluster", "expected"), on_commands(CLUSTERS))
def test_a_cluster_that_cannot_be_is_one_line_and_writes_nothing(
    write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch, command: str, cluster: Tree, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert refused(layerlore(command, write({**tiny_tree, "cluster": cluster}))) == expected
    assert not Path(tiny_tree["store"]).exists()


@pytest.mark.parametrize("url", ["memory://x", "ftp://h/x", "foo://x", "http://h/x"])
def test_a_store_of_another_kind_is_one_line(write: Write, tiny_tree: Tree, url: str) -> None:
    path = write(tiny_tree)
    expected = f"store: expected a local folder, file:///folder or s3://bucket/prefix, found '{url}'"
    for command in ("run", "plan", "report"):
        assert refused(layerlore(command, path, "--set", f"store={url}")) == f"{path}: {expected}"
    for command in ("status", "verify", "gc"):
        assert refused(layerlore(command, url)) == expected


def test_a_seed_beyond_64_bits_is_one_line(write: Write, tiny_tree: Tree) -> None:
    text = refused(layerlore("run", write(tiny_tree), "--set", f"seeds=[{2**63}]"))
    assert text.endswith(f"seeds.0: input should be less than or equal to {2**63 - 1}, found {2**63}")
    assert len(text.splitlines()) == 1
    assert not Path(tiny_tree["store"]).exists()


def test_a_crop_larger_than_the_images_is_refused_by_the_plan(write: Write, tiny_tree: Tree) -> None:
    tiny_tree["networks"]["small"]["preprocessing"] = {"mode": "L", "crop": 9}
    assert refused(layerlore("plan", write(tiny_tree))) == (
        "networks.small: sample all/0: preprocessing.crop: expected at most the image's 8 x 8 pixels, found 9; "
        "lower it, or resize to at least that"
    )


def test_a_missing_file_of_weights_is_named(write: Write, tiny_tree: Tree) -> None:
    tiny_tree["networks"]["small"] = {"model": "small-cnn", "weights": "/no/weights.pt", "preprocessing": {"mode": "L"}}
    assert "/no/weights.pt" in refused(layerlore("run", write(tiny_tree)))


def test_too_little_memory_names_the_setting_and_what_to_do(write: Write, tiny_tree: Tree) -> None:
    text = refused(layerlore("plan", write(tiny_tree), "--set", "cluster.memory_limit=0.3GB"))
    assert re.fullmatch(
        r"cluster\.memory_limit: expected at least \d\.\d GB for stage \w+ of .*, found 0\.3GB; raise it, .*", text
    )


def test_too_little_disk_names_the_setting_and_what_to_do(
    write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    text = refused(layerlore("run", write(tiny_tree)))
    assert re.match(r"store: expected 0\.0 GB of free disk at .*, found 0\.0 GB; choose another disk", text)
    assert not Path(tiny_tree["store"]).exists()


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_bytes(b"\xff")
    assert refused(layerlore("run", str(tmp_path / "empty.yaml"))).endswith(
        "empty.yaml: expected UTF-8 text, found other bytes"
    )
    assert "expected a file or a preset, found neither" in refused(layerlore("run", "nothing"))


def test_a_store_by_a_newer_layerlore_is_left_alone(write: Write, tiny_tree: Tree) -> None:
    store = Path(tiny_tree["store"])
    store.mkdir()
    (store / "layerlore-store").write_text("2\n")
    for command in (["run", write(tiny_tree)], ["status", str(store)], ["verify", str(store)], ["gc", str(store)]):
        assert "expected a store of format 1 or older, found 2, which a newer layerlore wrote" in refused(
            layerlore(*command), exits.FAILED
        )
    assert [p.name for p in store.iterdir()] == ["layerlore-store"]


def test_a_store_that_is_none(tmp_path: Path) -> None:
    for command in ("status", "verify", "gc"):
        text = refused(layerlore(command, str(tmp_path / "none")), exits.FAILED)
        assert text == f"{tmp_path}/none: expected a layerlore store, found none; `layerlore run` makes one"
    assert not (tmp_path / "none").exists()


def test_a_store_that_cannot_be_written(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def refuse(path: Path, *given: bool, **named: bool) -> None:
        if path.is_relative_to(tiny_tree["store"]):
            raise PermissionError(13, "Permission denied")
        make(path, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    text = refused(layerlore("run", write(tiny_tree)), exits.FAILED)
    assert text.endswith("cannot write a store here: Permission denied; choose another `store`")
    assert not Path(tiny_tree["store"]).exists()
