"""What a page is may be known without what draws it."""

import subprocess
import sys

import pytest

DRAWS = ("jinja2", "matplotlib", "plotly", "torch")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tasks.report.pages", (*DRAWS, "pandas")),
        ("tasks.report.interpretation.content", DRAWS),
        ("tasks.report.decomposition.content", DRAWS),
        ("tasks.report.concepts.content", DRAWS),
        ("tasks.report.tracing.content", DRAWS),
    ],
)
def test_what_draws_is_imported_when_a_page_is_drawn(module: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*(name for name in {absent} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
