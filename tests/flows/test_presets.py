"""Every preset that needs no files can be planned: its networks, layers, labels and sizes fit one another."""

from pathlib import Path

import pytest
import yaml

from configs.load import load_config, presets
from flows.plan import make_plan
from flows.progress import planned_stages

DRAWN = {"sklearn-digits", "mini-broden"}  # sources without files


def complete_presets() -> list[str]:
    """Return the names of the presets whose data are drawn or come with a package, and whose networks are trained."""
    found = []
    for name, text in presets().items():
        tree = yaml.safe_load(text)
        drawn = {data["source"] for data in tree["data"].values()} <= DRAWN
        if drawn and all("train" in network for network in tree["networks"].values()):
            found.append(name)
    return found


def test_some_presets_need_no_files() -> None:
    assert {"digits", "tracing-digits", "concepts-digits", "concepts-paradigms-digits"} <= set(complete_presets())


@pytest.mark.slow
@pytest.mark.parametrize("name", complete_presets())
def test_a_preset_without_files_can_be_planned(name: str, tmp_path: Path) -> None:
    rows = planned_stages(make_plan(load_config(name, [f"store={tmp_path / 'store'}"])), None)
    assert {row.state for row in rows} == {"missing"}
    assert not (tmp_path / "store").exists()
