"""Tables of units by Network Dissection as files of the report, in the columns of the published tables."""

from collections.abc import Sequence

from storage.stores import Store
from tasks.steps.concepts.network_dissection import NAME, read_dissection, read_vocabulary
from tasks.steps.concepts.plan import Monitored


def unit_files(store: Store, answers: Sequence[Monitored]) -> dict[str, bytes]:
    """Return a CSV file for each network, seed and layer at its last snapshot, by path below the report."""
    from tasks.detectors.unit_table import unit_table

    files = {}
    for answer in answers:
        last = len(answer.responses) - 1
        for seen in answer.seen:
            if seen.view.detector == NAME and seen.snapshot == last:
                spec = seen.neurons.inputs["detected"]
                vocabulary = read_vocabulary(store, spec)
                table = unit_table(read_dissection(store, spec), vocabulary.names, vocabulary.categories)
                name = f"units-{answer.network}-seed-{answer.seed}-{seen.layer}.csv"
                files[f"tables/{name}"] = table.to_csv(index=False, lineterminator="\n").encode()
    return files
