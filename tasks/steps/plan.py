"""The order of stages, from what each of them reads."""

from collections.abc import Iterable, Iterator

from storage.specs import StageSpec


def with_inputs(specs: Iterable[StageSpec]) -> tuple[StageSpec, ...]:
    """Return stages and all stages that they read, each once, inputs before the stages that read them."""
    ordered: dict[str, StageSpec] = {}
    waiting = [(spec, False) for spec in reversed(list(specs))]
    while waiting:  # a loop: a chain of stages may be longer than the recursion limit
        spec, visited = waiting.pop()
        if spec.path in ordered:
            continue
        if visited:
            ordered[spec.path] = spec
        else:
            waiting.append((spec, True))
            waiting.extend((read, False) for read in reversed(list(spec.inputs.values())))
    return tuple(ordered.values())


def waves(stages: Iterable[StageSpec]) -> Iterator[list[StageSpec]]:
    """Yield stages of one kind whose inputs are there, until all stages have had their turn.

    A kind of which all remaining stages are ready comes first, so that stages of a kind are made together; a chain
    of stages of one kind goes on link by link.

    Parameters
    ----------
    stages : every stage once, with all stages that it reads, in any order

    Raises
    ------
    ValueError : stages that read each other, or a stage that reads one that is not listed
    """
    remaining, made = list(stages), set[str]()
    while remaining:
        ready, blocked = [], []
        for spec in remaining:
            (ready if all(read.path in made for read in spec.inputs.values()) else blocked).append(spec)
        if not ready:
            raise ValueError(f"{remaining[0].title}: an input is neither among the stages nor made before it")
        later = {spec.stage for spec in blocked}
        kind = next((spec.stage for spec in ready if spec.stage not in later), ready[0].stage)
        wave = [spec for spec in ready if spec.stage == kind]
        yield wave
        made |= {spec.path for spec in wave}
        remaining = [spec for spec in remaining if spec.path not in made]
