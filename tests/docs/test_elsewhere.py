"""docs/elsewhere.md runs as it stands: each way from nothing to the report, with the real packages where they are."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.steps.report import write_report
from tests.flows.command import layerlore

if TYPE_CHECKING:
    from tests.conftest import Run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "elsewhere.md"
WAYS = {"train.py": "", "train_lightning.py": "lightning", "train_hugging_face.py": "transformers"}
URLS = {
    "train.py": "lore-of-loop",
    "train_lightning.py": "lore-of-lightning",
    "train_hugging_face.py": "lore-of-trainer",
}

pytestmark = pytest.mark.filterwarnings("default")  # those of the packages


def files() -> dict[str, str]:
    """The page's blocks that name a file in their first line."""
    blocks = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    return dict(blocks)


@pytest.mark.parametrize("script", WAYS)
def test_from_nothing_to_the_report(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_run: Callable[[dict[str, Any]], "Run"]
) -> None:
    if package := WAYS[script]:
        pytest.importorskip(package, reason=f"the extra of {package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    for name, text in files().items():
        Path(name).write_text(text)
    runpy.run_path("data.py")
    runpy.run_path(script)
    url = URLS[script]
    assert f"url: {url}" in PAGE.read_text()
    tree = yaml.safe_load(Path("elsewhere.yaml").read_text().replace("lore-of-loop", url))
    run = new_run({**tree, "cluster": {"kind": "serial"}}).finish()
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    networks = pd.read_parquet("lore/reports/elsewhere/tables/tracing_networks.parquet")
    assert networks["steps"].tolist() == [190]
    assert networks["accuracy"].item() > 0.8  # it has learned
    explained = layerlore("explain", "lore", "--query", "3", "--layer", "3")
    assert explained.exit_code == 0, explained.output
    with np.load("val.npz") as arrays:
        np.save("inputs.npy", arrays["images"][:2, None] / 255)
    bare = layerlore("explain", url, "--model", "my_net:build", "--inputs", "inputs.npy", "--query", "0")
    assert bare.exit_code == 0, bare.output
    status = layerlore("status", url)
    assert ": closed archive, 190 steps of layers 1, 3, kind dense, " in status.stdout
    monkeypatch.delitem(sys.modules, "my_net")


def test_each_way_is_on_the_page() -> None:
    assert set(files()) == {"data.py", "my_net.py", "elsewhere.yaml", *WAYS}
