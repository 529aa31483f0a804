"""The report as files: a static site that works without a server."""

from tasks.report.pages import InterpretationPage, RunFacts


def render_site(facts: RunFacts, interpretation: InterpretationPage | None = None) -> dict[str, bytes]:
    """Render every page and what the pages need."""
    raise NotImplementedError
