"""Tests of `tasks.io.weights`."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tasks.io.digests import file_sha256
from tasks.io.networks import build_model
from tasks.io.weights import load_weights


def model(seed: int, **arguments: Any) -> nn.Module:
    """Return a small network."""
    return build_model("small-cnn", {"width": 4, **arguments}, seed)


def state(**changes: Tensor) -> dict[str, Tensor]:
    """Return the weights of seed 1."""
    return {**model(1).state_dict(), **changes}


def assert_loaded(path: Path) -> None:
    """Assert that a file gives the weights of seed 1."""
    loaded = model(0)
    load_weights(loaded, str(path))
    for key, tensor in state().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=0, atol=0)


def test_state_dicts_in_all_forms(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "plain.pt")
    torch.save({"state_dict": state(), "epoch": 3}, tmp_path / "nested.pth")
    torch.save({f"module.{key}": tensor for key, tensor in state().items()}, tmp_path / "parallel.pt")
    torch.save({k: t for k, t in state().items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pt")
    save_file(state(), tmp_path / "plain.safetensors")
    for path in sorted(tmp_path.iterdir()):
        assert_loaded(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"module.extra": torch.zeros(2)},
            r"weights .*w.pt: expected the weights of the model, found 1 unexpected \(first module.extra\)",
        ),
        (
            {"11.weight": torch.zeros(100, 8)},
            r"1 of another shape \(first 11.weight: file \(100, 8\), model \(10, 8\)\); check the architecture\.",
        ),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(tmp_path: Path, changed: dict[str, Tensor], message: str) -> None:
    torch.save({**state(), **changed}, tmp_path / "w.pt")
    own = model(0)
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        load_weights(own, str(tmp_path / "w.pt"))
    assert "\n" not in str(error.value)
    assert all(torch.equal(own.state_dict()[key], before[key]) for key in before)


def test_another_architecture_is_named_with_counts(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    message = (
        r"w.pt: expected the weights of the model, found 17 of 20 tensors missing \(first 0.weight\); "
        r"2 unexpected \(first weight\)"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(model(0), str(tmp_path / "w.pt"))


class Payload:
    """Code that unpickling would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Payload(), tmp_path / "w.pt")
    torch.save(model(1), tmp_path / "model.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Payload()}, protocol=2))
    for name in ("w.pt", "model.pt", "plain.pt"):
        with pytest.raises(ValueError, match=rf"file .*{name} is corrupted or holds more than tensors") as error:
            load_weights(model(0), str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + b"\0" * 50, b"\x80\x02}q\x00."])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"file .*w.pt is corrupted or holds more than tensors"):
        load_weights(model(0), str(tmp_path / "w.pt"))
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"file .*w.safetensors is corrupted or not in safetensors format"):
        load_weights(model(0), str(tmp_path / "w.safetensors"))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    raw = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=r"file .*w.pt is corrupted"):
        load_weights(model(0), str(tmp_path / "w.pt"))


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, {1: torch.zeros(2)}])
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w.pt: expected a dict of tensors by name, found a (Tensor|dict)"):
        load_weights(model(0), str(tmp_path / "w.pt"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights: file .*none.pt does not exist"):
        load_weights(model(0), str(tmp_path / "none.pt"))


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"abc")
    assert file_sha256(str(tmp_path / "w.pt")) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(ValueError, match=r"file .*none.pt does not exist"):
        file_sha256(str(tmp_path / "none.pt"))
