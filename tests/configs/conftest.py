"""A config file of a test's own."""

from pathlib import Path

import pytest
import yaml

from tests.configs.small import Tree, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a config file and returns its path."""

    def write_file(content: Tree | str | bytes) -> str:
        path = tmp_path / "run.yaml"
        text = yaml.safe_dump(content) if isinstance(content, dict) else content
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_file
