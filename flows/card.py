"""The command `layerlore card`: one page with all that a run knows of one image."""

from functools import partial
from typing import Annotated

import typer

from flows.exits import exits
from flows.options import RunOption, StoreArgument, opened_store
from flows.terminal import err, print_lines, watched

SAMPLE = typer.Option("--sample", help="id or key of a sample")
IMAGE = typer.Option("--image", metavar="FILE", help="image file")
WRONG = typer.Option("--wrong", metavar="N", help="the N-th wrong answer on held-out images, the surest first")
NETWORK = typer.Option(help="name; default: the network with most questions")
SEED = typer.Option(help="seed; default: the first of the config")
DATA = typer.Option(help="data set of --sample and --wrong; default: the network's own")


def card(
    store: StoreArgument,
    sample: Annotated[str | None, SAMPLE] = None,
    image: Annotated[str | None, IMAGE] = None,
    wrong: Annotated[int | None, WRONG] = None,
    network: Annotated[str | None, NETWORK] = None,
    seed: Annotated[int | None, SEED] = None,
    data: Annotated[str | None, DATA] = None,
    name: RunOption = None,
) -> None:
    """Write one page with all that a run knows of one image: what decided the answer, and who taught it, and when."""
    from flows.carding import Wanted, card_of, finished_run, save_card, sentences_of

    with exits(f"layerlore card {store}"):
        wanted = Wanted(sample, image, wrong, network, seed, data)
        run = finished_run(opened_store(store), name)
        found = card_of(run, wanted, watched)
        print_lines(found.title, *sentences_of(found))
        print_lines(f"card: {save_card(run, found, partial(err.print, markup=False))}")
