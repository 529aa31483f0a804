"""The imports between folders, from the syntax trees of all sources: `python tests/import_graph.py`.

Prints a line per folder: what it imports of ours, and by how many files each. Folders that import each other, directly
or through others, are listed at the end. Imports inside functions and under TYPE_CHECKING count too.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("configs", "flows", "storage", "tasks")

Graph = Mapping[str, Mapping[str, int]]  # folder -> folder that it imports -> number of its files that do


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, those inside functions too; a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module in OURS:  # `from tasks import io` names tasks.io
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, str(node.module)


def import_graph(root: Path) -> Graph:
    """Return which folder below `root` imports which other."""
    graph: dict[str, Counter[str]] = {}
    for path in sorted(file for package in OURS for file in (root / package).rglob("*.py")):
        folder = path.parent.relative_to(root).as_posix()
        targets = {_folder(root, module) for _, module in imports(ast.parse(path.read_text(encoding="utf-8")))}
        graph.setdefault(folder, Counter()).update(targets - {folder, ""})
    return graph


def cycles(graph: Graph) -> list[list[str]]:
    """Return the groups of folders that reach each other."""
    reached = {folder: _reachable(graph, folder) for folder in graph}
    groups = {
        tuple(sorted(other for other in reached[folder] if folder in reached.get(other, ())))
        for folder in graph
        if folder in reached[folder]
    }
    return [list(group) for group in sorted(groups)]


def _folder(root: Path, module: str) -> str:
    """Return the folder of a module of ours, "" for others."""
    if module.partition(".")[0] not in OURS:
        return ""
    path = root.joinpath(*module.split("."))
    return (path if path.is_dir() else path.parent).relative_to(root).as_posix()


def _reachable(graph: Graph, start: str) -> set[str]:
    """Return the folders that one imports, directly or through others."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        folder = waiting.pop()
        if folder not in found:
            found.add(folder)
            waiting.extend(graph.get(folder, ()))
    return found


def main() -> None:
    """Print the graph of this repository."""
    graph = import_graph(ROOT)
    for folder, targets in graph.items():
        print(f"{folder} -> {', '.join(f'{name} {count}' for name, count in sorted(targets.items())) or '-'}")
    print(f"{len(graph)} folders, {sum(len(targets) for targets in graph.values())} edges")
    for group in cycles(graph):
        print(f"import each other: {', '.join(group)}")


if __name__ == "__main__":
    main()
