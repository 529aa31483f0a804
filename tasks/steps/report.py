"""The report: a static site with a page for each question, made from finished stages, and its tables as Parquet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from configs.load import config_text
from configs.schema import Config
from storage.claims import claim
from storage.documents import canonical, digest
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import find_many, open_finished
from storage.stores import Store
from tasks.report.pages import RunFacts
from tasks.steps.common.costs import costs_of
from tasks.steps.common.courses import CURVES
from tasks.steps.common.question import Answer
from tasks.steps.questions import QUESTIONS, STEPS

if TYPE_CHECKING:
    import pandas as pd

VERSION = 5
SHOWN_VERSIONS = ("layerlore", "torch", "torchvision", "numpy", "scikit-learn", "zarr", "prefect", "distributed")


@dataclass(frozen=True)
class Made:
    """The inputs of a report.

    Attributes
    ----------
    stages : all stages of the run, with inputs before their readers
    trainings : trainings by network and seed
    answers : answers by name of the question
    """

    config: Config
    stages: Sequence[StageSpec]
    trainings: Mapping[tuple[str, int], StageSpec]
    answers: Mapping[str, Sequence[Answer]]


def report_path(config: Config) -> str:
    """Return the path of the first page of a run's report, relative to the store."""
    return f"{report_folder(config)}/index.html"


def report_is_current(store: Store, made: Made) -> bool:
    """Say whether the report in the store was made from these stages."""
    try:
        return store.read(f"{report_folder(made.config)}/made-from").decode() == made_from(made)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def write_report(
    store: Store,
    made: Made,
    *,
    created: str,
    reused: frozenset[str],
    wait: bool = True,
    say: Callable[[str], None] | None = None,
) -> str:
    """Write the site and its tables, remove files of an earlier report, and return the path of the first page.

    Parameters
    ----------
    created : time of the run, for people
    reused : paths of the stages that were there before the run
    wait : wait for another run that writes the same report
    say : called once with the name of the other run, during a wait

    Raises
    ------
    StageHeldError : another run writes the same report, and `wait` is false
    """
    root, files = report_folder(made.config), _files(remembering(store), made, created, reused)
    with claim(store, root, f"the report of run {made.config.name}", wait=wait, on_wait=say):
        store.remove(f"{root}/made-from")  # until it is there again, the report counts as not current
        store.write_all({f"{root}/{name}": data for name, data in files.items()})
        for name in store.files(root):  # under the claim, leftover files belong to no other run
            if name not in files:
                store.remove(f"{root}/{name}")
        store.write(f"{root}/made-from", made_from(made).encode())
    return report_path(made.config)


def _files(store: Store, made: Made, created: str, reused: frozenset[str]) -> dict[str, bytes]:
    """Return the files of the report by path."""
    from tasks.report.site import render_site

    find_many(store, [spec.path for spec in made.stages])  # together: the pages open them one by one
    asked = [question for name, question in QUESTIONS.items() if made.answers.get(name)]
    images = made.config.report.training_images
    pages = [question.page(store, made.answers[question.name], images) for question in asked if question.page]
    files = {path: data for page in pages for path, data in page.files.items()}
    texts = {question.name: question.text for question in asked}
    return files | render_site(_facts(store, made, created, reused), pages, texts)


def _facts(store: Store, made: Made, created: str, reused: frozenset[str]) -> RunFacts:
    """Return the facts of the overview."""
    import pandas as pd

    config = made.config
    return RunFacts(
        name=config.name,
        created=created,
        config_yaml=config_text(config),
        store=store.url,
        versions={name: version(name) for name in SHOWN_VERSIONS},
        stages=pd.DataFrame(_stages(store, made.stages, reused)),
        training_images=config.report.training_images,
        curves=_curves(store, made.trainings),
    )


def _stages(store: Store, specs: Sequence[StageSpec], reused: frozenset[str]) -> list[dict[str, object]]:
    """Return the rows of the stages in the table of stages, with their costs."""
    return [
        {
            "stage": spec.stage,
            "key": spec.key,
            "label": spec.label,
            "partitions": cost.partitions,
            "seconds": cost.seconds,
            "peak_mb": cost.peak_mb,
            "reused": spec.path in reused,
        }
        for spec, cost in zip(specs, costs_of(store, specs), strict=True)
    ]


def _curves(store: Store, trainings: Mapping[tuple[str, int], StageSpec]) -> "pd.DataFrame | None":
    """Return loss and accuracy by epoch of every training."""
    import pandas as pd

    from storage.results import read_table

    tables = []
    for (network, seed), spec in trainings.items():
        if not STEPS[spec.stage].curves:  # trained elsewhere
            continue
        data = open_finished(store, spec).read_file(CURVES)
        tables.append(read_table(data, f"{spec.path}/files/{CURVES}").assign(network=network, seed=seed))
    return pd.concat(tables, ignore_index=True) if tables else None


def report_folder(config: Config) -> str:
    """Return the folder of a run's report, relative to the store."""
    return f"reports/{config.name}"


def made_from(made: Made) -> str:
    """Return the digest of all that the report depends on, whatever the order of the stages."""
    paths = sorted(spec.path for spec in made.stages)
    return digest(canonical([VERSION, version("layerlore"), made.config.model_dump(mode="json"), paths]))
