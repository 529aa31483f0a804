"""Pickled code in every kind of file that is read: refused, and never run. And no reader that could run it."""

import ast
import base64
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from configs.schema import ImageNet, Npz
from storage.documents import DamagedError
from storage.results import read_table
from storage.tensors import decode_tensors
from storage.updates.ledger import read_ledger
from tasks.io.captioner_files import read_captioner
from tasks.io.imagenet import ImageNetSource
from tasks.io.npz import NpzSource
from tasks.io.weights import read_states, read_torch
from tasks.steps.decomposition.partials import pack_sums

ROOT = Path(__file__).resolve().parents[2]


class Payload:
    """Code that unpickling would run: it makes the folder `ran` in the working directory."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return (Path.mkdir, (Path("ran"),))  # type: ignore[return-value]  # what a pickle holds is a call


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def not_run() -> bool:
    """Say whether no payload has run."""
    return not Path("ran").exists()


def test_the_payload_runs_where_it_is_let() -> None:
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301  # shows that the tests below can fail
    assert not not_run()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("hostile", ["images", "labels"])
def test_npz(save: Callable[..., None], hostile: str) -> None:
    arrays: dict[str, Any] = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2, np.int64)}
    save("a.npz", **(arrays | {hostile: np.array([Payload(), Payload()], dtype=object)}))
    with pytest.raises(ValueError, match=r"npz .*a\.npz: corrupted, or not an archive of numbers"):
        list(NpzSource(Npz.model_validate({"source": "npz", "paths": {"train": "a.npz"}})).rows())
    assert not_run()


def test_npz_members_that_are_pickles_and_not_asked_for_are_left_alone() -> None:
    np.savez("a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(2, np.int64), more=np.array([Payload()]))
    assert len(list(NpzSource(Npz.model_validate({"source": "npz", "paths": {"train": "a.npz"}})).rows())) == 2
    assert not_run()


def test_npz_headers_are_no_code() -> None:
    header = b"{'descr': '|u1', 'fortran_order': __import__('os').mkdir('ran'), 'shape': (1, 1, 1), }"
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile("a.npz", "w", method) as archive:
            archive.writestr("images.npy", raw)
            archive.writestr("labels.npy", raw)
        with pytest.raises(ValueError, match=r"npz .*a\.npz: corrupted, or not an archive of numbers"):
            list(NpzSource(Npz.model_validate({"source": "npz", "paths": {"train": "a.npz"}})).rows())
    assert not_run()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content", [Payload(), {"weight": Payload()}, {"state_dict": {"w": torch.zeros(1)}, "x": Payload()}]
)
def test_torch_files(zipped: bool, content: object) -> None:
    torch.save(content, "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"file w\.pt is corrupted or holds more than tensors"):
        read_states("w.pt")
    assert not_run()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_plain_pickles_by_the_name_of_weights(protocol: int) -> None:
    for name in ("w.pt", "w.pth", "w.safetensors"):
        Path(name).write_bytes(pickle.dumps({"a": Payload()}, protocol=protocol))
        with pytest.raises(ValueError, match=rf"file {name} is corrupted"):
            read_states(name)
    assert not_run()


@pytest.mark.parametrize("content", [Payload(), {"state_dict": {}, "properties": {"indexer": Payload()}}])
def test_files_of_captioners(content: object) -> None:
    torch.save(content, "milan.pth")
    with pytest.raises(ValueError, match=r"file milan\.pth is corrupted or holds more than tensors"):
        read_captioner("milan.pth")
    assert not_run()


def test_imagenets_meta_file() -> None:
    for split in ("train", "val"):
        Path(split, "n0").mkdir(parents=True)
        Path(split, "n0", "a.JPEG").write_bytes(b"x")
    torch.save(({"n0": ("cat",)}, ["n0", Payload()]), "meta.bin")
    with pytest.raises(ValueError, match=r"file meta\.bin is corrupted or holds more than tensors"):
        ImageNetSource(ImageNet(source="imagenet", root=".").root).class_names()
    assert not_run()


def hostile_table() -> bytes:
    """Return a Parquet file whose schema says, as older Arrow wrote it, that a column's type is a pickle."""
    storage = pa.array([1, 2], pa.int64())
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload()),
    }
    table = pa.table([storage], schema=pa.schema([pa.field("step", pa.int64(), metadata=metadata)]))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_parquet_extension_types() -> None:
    raw = hostile_table()
    schema = pq.ParquetFile(io.BytesIO(raw)).metadata.metadata[b"ARROW:schema"]
    assert b"arrow.py_extension_type" in base64.b64decode(schema)
    for read in (read_table, read_ledger):
        assert read(raw, "it")["step"].tolist() == [1, 2]
    assert not_run()


def test_parquet_columns_of_objects_stay_bytes() -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"a": [pickle.dumps(Payload())]}).to_parquet(buffer, index=False)
    assert isinstance(read_table(buffer.getvalue(), "it")["a"][0], bytes)
    assert not_run()


def test_sums_refuse_to_be_written_with_objects() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        pack_sums({"a": np.array([Payload()], dtype=object)})


def test_pickles_by_the_name_of_safetensors_in_a_store() -> None:
    with pytest.raises(DamagedError, match="it: expected a safetensors file"):
        decode_tensors(pickle.dumps(Payload()), "it")
    assert not_run()


def test_torch_is_never_let_loose() -> None:
    torch.save({"a": torch.zeros(2)}, "w.pt")
    content = read_torch(Path("w.pt"))
    assert isinstance(content, dict)


# ------------------------------------------------------------------------------------------ what is called

MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
ALLOWED = {"tasks/io/weights.py": {"pickle"}}  # for the name of an error


def calls(tree: ast.AST) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return every call's dotted name and keyword arguments."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), {k.arg: k.value for k in call.keywords if k.arg}) for call in found]


def dangers(tree: ast.AST) -> list[str]:
    """Return the calls and imports of a source through which data could become code."""
    found = []
    for name, given in calls(tree):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__") or name in ("os.system", "os.popen"):
            found.append(name)
        if name in ("torch.load", "load_file") and last == "load":
            value = given.get("weights_only")
            found += [] if isinstance(value, ast.Constant) and value.value is True else [f"{name} without weights_only"]
        if name in ("np.load", "numpy.load") or last == "read_array":
            value = given.get("allow_pickle")
            found += [] if isinstance(value, ast.Constant) and value.value is False else [f"{name} with pickles"]
        if last in ("read_pickle", "unsafe_load", "full_load", "load_all", "from_pickle") or name == "yaml.unsafe_load":
            found.append(name)
        found += ["subprocess with a shell"] if "shell" in given else []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in names if name.partition(".")[0] in MODULES]
    return found


@pytest.mark.parametrize(
    "text",
    [
        *("torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=x)", "np.load(f)"),
        *("np.load(f, allow_pickle=True)", "import pickle", "from joblib import load", "eval(x)", "pd.read_pickle(f)"),
        *("subprocess.run(x, shell=True)", "yaml.unsafe_load(x)", "np.lib.format.read_array(f)"),
    ],
)
def test_a_planted_danger_is_found(text: str) -> None:
    assert dangers(ast.parse(text))


def test_no_source_reads_pickles_or_runs_data() -> None:
    found, loads = [], 0
    for package in ("configs", "flows", "storage", "tasks", "benchmarks", "deployments"):
        for path in (ROOT / package).rglob("*.py"):
            file, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            loads += text.count("torch.load(")
            allowed = {f"import {name}" for name in ALLOWED.get(file, ())}
            found += [f"{file}: {danger}" for danger in dangers(ast.parse(text)) if danger not in allowed]
    assert found == []
    assert loads >= 1
