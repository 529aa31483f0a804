"""The table of an image's most active interpretable neurons, against the tables of the run."""

from typing import TYPE_CHECKING

import numpy as np

from storage.stages import open_finished
from tasks.steps.concepts.card import MOST
from tasks.steps.concepts.responses import read_pooled
from tasks.steps.questions import QUESTIONS

if TYPE_CHECKING:
    from tests.conftest import Run


def test_a_card_names_the_interpretable_neurons_that_an_image_activates_most(probed_run: "Run") -> None:
    store, card = probed_run.job.store, QUESTIONS["concepts"].card
    (answer, *_) = probed_run.plan.answers["concepts"]
    assert card is not None
    some = next(iter(answer.responses[-1].values()))
    sample = int(open_finished(store, some).read("sample_id")[3])
    table = card(store, answer, sample)
    assert table is not None
    assert 0 < len(table) <= MOST
    assert (table["above"].diff().dropna() <= 0).all()
    columns = (table[name].tolist() for name in ("layer", "neuron", "activation", "above"))
    for layer, neuron, activation, above in zip(*columns, strict=True):
        responses = open_finished(store, answer.responses[-1][layer])
        values = read_pooled(responses, layer)[:, neuron]
        at = int(np.flatnonzero(responses.read("sample_id") == sample)[0])
        assert activation == values[at]
        assert above == np.mean(values < values[at])


def test_an_image_that_is_not_a_probing_image_has_no_part(probed_run: "Run") -> None:
    card, (answer, *_) = QUESTIONS["concepts"].card, probed_run.plan.answers["concepts"]
    assert card is not None
    assert card(probed_run.job.store, answer, 10**9) is None
