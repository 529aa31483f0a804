"""Write the table of stage kinds in docs/store.md from the code: python docs/make_store_reference.py."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from configs.load import load_config
from flows.plan import make_plan
from tasks.engine.step import Step
from tasks.steps.questions import JOINS, QUESTIONS, STEPS

PAGE_FILE = Path(__file__).resolve().parent / "store.md"
BEGIN, END = "<!-- stage kinds: docs/make_store_reference.py -->\n", "<!-- end of stage kinds -->\n"
PLANS = {  # presets that together have every kind and need no files, with what is changed in them
    "digits": (
        "networks.small.train.snapshots=3",
        "activations={networks: [small], layers: [head]}",
        "interpretation.interpreters.topics={}",
        "interpretation.interpreters.vebi={}",
    ),
    "decomposition-digits": (),
    "tracing-digits": ("tracing.derive={index: {}, aggregate: {}}",),
    "influence-digits": (),
    "concepts-digits": (
        "concepts.detectors.milan={}",
        "concepts.captioner={encoder: small, layers: ['2', '8']}",
    ),
    "concepts-paradigms-digits": (),
    "all-digits": (),
}
WRITES = {  # arrays with their axes, and files
    "manifest": "`manifest.parquet`: id, key, label_given, label_true, split, size, etag",
    "training": "`weights.safetensors`; `epochs.parquet`: loss, accuracy, learning rate where a schedule changes it; "
    "checkpoints; `content-SPLIT.bin`: a digest of each sample, 16 bytes, in class-major order; with `gates`, also "
    "`gates.safetensors`; with `record`, the archive of updates (below)",
    "snapshots": "`snapshot-STEP.safetensors`: the weights after STEP updates",
    "pruning": "`masks.safetensors`: bool by parameter, true where a weight remains",
    "ticket": "`weights.safetensors`: the weights of the step to rewind to, 0 where they are pruned",
    "layers": "`sample_id`, `label`, `content` as in activations; `pooled.LAYER` (sample, channel) and `maps.LAYER` "
    "(sample, ..., channel) for each named layer; the network's own layouts are in `complete.json` under `summary`",
    "activations": "`sample_id`, `label` (sample) int64; `content` (sample, byte): digests; `logits` (sample, output); "
    "`pooled` (sample, channel); `maps` (sample, row, column, channel), of tokens in one row",
    "selection": "`order` (class, rank): positions of the kept samples in the order chosen, -1 after the last; "
    "`label` (class)",
    "features": "for ICE `components` (class, component, channel), zero rows where fewer were found",
    "unit-responses": "`responses` (sample, unit), units of all ReLU calls up to the layer; the number of units of "
    "each call is in `complete.json` under `summary`",
    "unit-gram": "`gram` (unit, other), without the blocks below the diagonal, `moment` (unit, class): sums over the "
    "coreset's samples",
    "units": "`weights` (class, unit); `paths-PARTITION.parquet`: the weights at each breakpoint of mu",
    "unit-evaluation": "`values` (class, measure), `label` as in evaluation; `coverage` (class, call, set): units of "
    "the coreset, of the full data and of both",
    "unit-pictures": "of at most 16 units that only coresets find `unit` (shown, fact): label of the class, ReLU call, "
    "channel, whether the full data finds it for another class; `weight` (shown, features); of its best images `image` "
    "(shown, rank, row, column, colour), `heat` (shown, rank, row, column), `response`, `sample_id`, `image_label` "
    "(shown, rank)",
    "topics": "`topics.safetensors`: topics (channel, topic) and two layers (topic, hidden), (hidden, channel), "
    "which all classes share; checkpoints",
    "topic-scores": "`shapley` (topic), `cosine` (topic, topic); completeness and accuracies in `complete.json` under "
    "`summary`",
    "attacked": "`sample_id`, `right`, `robust` (sample): whether the class is found, as the image is and after each "
    "attack",
    "evaluation": "`values` (class, measure), the measures' names in `complete.json` under `summary`; `label` (class)",
    "gallery": "`image` (image, row, column, colour), `heat` (image, features, row, column); `sample_id`, `label`, "
    "`predicted` (image)",
    "cards": "`feature`, `importance`, `activity` (class, slot), -1 and NaN after the last feature; `position`, "
    "`value` (class, slot, image) and `box` (class, slot, image, side): top, left, bottom, right as shares of the "
    "image; `label`, `searched` (class)",
    "unit-cards": "as `cards`; a feature is a unit",
    "card-pictures": "`image` (picture, row, column, colour), `position` (picture)",
    "penultimate": "`features` (sample, feature); `sample_id`, `label`, `content`, `logits` as in activations",
    "strongest": "a file of sums for each range of samples: counts by class and feature, exact sums of features",
    "histogram": "`counts`, `absolute`, `mean` (class, feature): images that count a feature, sum of magnitudes, mean; "
    "`order` (class, feature): features by count; `overall_mean`, `overall_std` (feature); `images` (class)",
    "gates": "`gates` (channel, class); `indices` (class, k): the channels with the largest gates",
    "head-scores": "`correct`, `agreeing` (range, draw, class) and `images` (range, class): counts",
    "coverage": "a file of sums for each range of samples: shares by image",
    "ablation": "`correct` (range, place of the noise, draw) and `images` (range): counts",
    "head-cost": "no array; multiply-adds are in `complete.json` under `summary`, times in the record of partition 0",
    "feature-images": "`position`, `sample_id`, `label`, `value` (feature, rank): the images with the largest values; "
    "`feature` (feature); `weight` (class, rank): of the features of each class's set",
    "feature-pictures": "`picture` (image, row, column, colour), `position` (image): each image once; `box` (feature, "
    "rank, edge): top, left, bottom, right as shares of the image",
    "decomposition-gallery": "`image` (image, row, column, colour), `maps` (image, map, row, column); `sample_id`, "
    "`label`, `predicted` (image); no array where features are not means of maps",
    "decomposed-training": "`weights.safetensors`; `epochs.parquet`, epoch 0 before the first step; checkpoints; "
    "`content-SPLIT.bin`",
    "linked-updates": "`weights.safetensors`: the last weights of an archive elsewhere; `ids.parquet`: id of the "
    "archive and sample_id; `content-SPLIT.bin`",
    "queries": "`sample_id`, `label` (query) int64; `logits` (query, class); `image` (query, row, column, colour)",
    "contributions": "of each layer `gamma.LAYER`, `norm.LAYER` (step, query), `init.LAYER`, `preactivation.LAYER` "
    "(query): gamma, the norm of `D_t f`, `<z, W_0 f>`, the norm of z; of the output layer `logit.LAYER` "
    "(step, query, logit) for the predicted and the given class, `logit_init.LAYER` (query, logit)",
    "influence": "`top_id`, `top_sum`, `top_label` and `bottom_...` (ranking, query, rank); `reference` "
    "(ranking, query); `parts` (layer, query, part), `square` (layer, query); `class_gamma` (layer, query, epoch, "
    "class); `ridge`, `ridge_total`, `ridge_class`; `complete.json` says under `summary` what the axes mean, and by "
    "layer from which step on decay is unknown (`decay_unknown_from`)",
    "counterfactual": "`derivative` (part, query, example): the sum over parts, which are ranges of steps, is the "
    "derivative by each example's weight, by position in the training set; `growth-PART.parquet`: growth of the "
    "adjoint by step; `adjoint-PART-DIGEST.safetensors`: what the next part starts from",
    "tracin": "`influence` (part, query, example): the sum over parts is the score, by position in the training set; "
    "at checkpoints also `self` (part, example): each example's influence on its own loss",
    "comparison": "`top_id`, `top_value`, `top_label` and `bottom_...` (score, query, rank); the scores and their "
    "checks are in `complete.json` under `summary`",
    "index-basis": "`input` (query, channel, row, column): references; `basis.LAYER` (query, coefficient): weights of "
    "the references in each axis; `place.LAYER` (held, coefficient), `square.LAYER` (held): directions of held-out "
    "queries",
    "index": "`coefficient.LAYER` (step, coefficient), `size.LAYER` (step): of each update; `errors.LAYER` (part, "
    "held, sum): squares of errors and of exact gammas, in units of both norms",
    "aggregate": "`sum.LAYER` (epoch, group, ...), `bias.LAYER` (epoch, group, out): sums of updates; the last group "
    "is of steps without a record",
    "suspects": "`suspects.parquet`: rank, sample_id, key, label_given, label_true, predicted, score, disagreement",
    "teachers": "`teachers.parquet`: sample_id of the suspect, other (class), place, example_id, example_key, "
    "example_label, value, share",
    "neuron-contributions": "as `contributions`, of each traced neuron `OPERATION:NEURON` on its own images (step, "
    "image); operation, neurons and positions of their images are in `complete.json` under `summary`",
    "neuron-teachers": "`neurons.parquet`: neuron, images, the sum of squared preactivations `square`, and the shares "
    "of initial weights, decay, unrecorded steps and steps outside the window; `examples.parquet`: neuron, end (for, "
    "against), rank, sample_id, key, label, gamma, share; `classes.parquet`: neuron, start and end (steps of a part of "
    "the training), epoch, label (-1 for all others), share; `sample_id` (image), -1 after the last, and `image` "
    "(image, row, column, colour) of the training images",
    "dual-encoder": "`encoder.safetensors`: the weights of the tiny image-text model",
    "words": "`text` (word, dimension): unit vectors; `words.parquet`: word, category, categories",
    "image-features": "`sample_id`, `content` as in activations; `image` (sample, dimension): unit vectors",
    "concept-side": "`cosine` (sample, word); `moments` (partition, moment, word): central moments of each word's "
    "cosines; `sample_id`",
    "responses": "`pooled.LAYER` (sample, neuron) and, for Network Dissection, `maps.LAYER` (sample, row, column, "
    "neuron) float16; `sample_id`, `content`",
    "clip-dissect": "`similarity` (neuron, word); `null_best`, `dead`, `few_positive` (neuron)",
    "dissection-thresholds": "`top` (range, neuron, place): the largest values of each neuron on a range of images; "
    "`highest`, `lowest` (range, neuron)",
    "network-dissection": "pixel counts for each range of images, of the images' label maps (`true.NAME`) and of "
    "exchanged ones (`null.NAME`): `intersection` (range, neuron, label), `label_area` (range, label), `unit_area` "
    "(range, neuron, category), `mask_size` (range, axis); `threshold`, `dead` (range, neuron); `labels.parquet`: the "
    "labels",
    "captioner": "`captioner.safetensors`, `words.json`: the captioner and its vocabulary; `test.parquet`: captions of "
    "regions of other images, known and found; `losses.parquet`: held-out loss by epoch; `complete.json` says under "
    "`summary` how well captions agree, with the null of each",
    "regions": "`features` (neuron, exemplar, feature): of the regions that activate each neuron most; `position`, "
    "`share` (neuron, exemplar): the image, and the region's share of it; `dead` (neuron)",
    "milan": "`tokens` (neuron, rank, token), `score` (neuron, rank): captions and their scores; `null_best`, `dead` "
    "(neuron)",
    "descriptions": "as `words`, of the captions of a layer's neurons",
    "planted": "`planted.parquet`: neuron, word, rank of the true word, and its rank with exchanged images",
    "planted-captions": "`planted.parquet`: neuron, word, rank of the first caption with the true word, the best "
    "caption; the same with exchanged regions",
    "plane": "`words.parquet` and `plane.parquet`: the places x and y of words and neurons",
    "exemplars": "`picture` (example, row, column, colour); `exemplars.parquet`: layer, neuron, rank, sample_id, "
    "activation",
    "neurons": "`embedding` (neuron, dimension); `neurons.parquet`: the best words of each neuron; `taus.parquet`, "
    "`temperatures.parquet`, `anchors.parquet`",
    "mislabel": "`segment-NUMBER.parquet`: id, self-attribution by layer, equal part of its batches' losses",
    "randomisation": "`correlation` (ranking, query)",
    "retraining": "`margin` (retraining, query), the retrainings of a subset one after the other",
    "datamodelling": "`correlation` (ranking, query)",
}


def reference() -> dict[Path, str]:
    """Return the page with the present tables, by its path."""
    text = PAGE_FILE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {PAGE_FILE: before + BEGIN + tables() + END + after}


def tables() -> str:
    """Return both tables: what each kind is and reads, and what it writes."""
    roles, owners = inputs_of_kinds(), questions_of_kinds()
    kinds = [_row(step, owners[kind], roles[kind]) for kind, step in STEPS.items()]
    kinds_head = "| stage | VERSION | question | reads | what it is |\n| --- | --- | --- | --- | --- |"
    writes_head = "| stage | arrays (axes) and files |\n| --- | --- |"
    writes = [f"| `{kind}` | {WRITES[kind]} |" for kind in STEPS]
    return "\n".join(["", kinds_head, *kinds, "", writes_head, *writes, "", ""])


def questions_of_kinds() -> dict[str, str]:
    """Return the name of the question that brings each kind, of several for a join; "all" for kinds that all share."""
    owners = [(name, question.steps) for name, question in QUESTIONS.items()]
    owners += [(" and ".join(join.questions), join.steps) for join in JOINS.values()]
    return dict.fromkeys(STEPS, "all") | {step.kind: name for name, steps in owners for step in steps}


def inputs_of_kinds() -> dict[str, list[str]]:
    """Return the roles of each kind's inputs with the kinds that fill them, over the plans of all presets in PLANS."""
    found: dict[str, dict[str, set[str]]] = {kind: {} for kind in STEPS}
    for role, kind, read in _inputs():
        found[kind].setdefault(role, set()).add(read)
    return {kind: [_role(role, reads) for role, reads in roles.items()] for kind, roles in found.items()}


def _inputs() -> Iterator[tuple[str, str, str]]:
    """Yield the role, the kind that reads and the kind that is read, of every input in the plans."""
    for preset, changes in PLANS.items():
        for spec in make_plan(load_config(preset, changes)).stages:
            for role, read in spec.inputs.items():
                yield re.sub(r" \d+$", " N", role), spec.stage, read.stage


def _role(role: str, kinds: set[str]) -> str:
    """Return a role with the kinds that fill it."""
    return f"`{role}` ({', '.join(f'`{kind}`' for kind in sorted(kinds))})"


def _row(step: Step, question: str, roles: list[str]) -> str:
    """Return the row of a kind in the first table."""
    (line, *_) = (sys.modules[step.partition.__module__].__doc__ or "").splitlines()
    text = re.sub(r"^The .*? stages?: ", "", line)
    cells = (f"`{step.kind}`", str(step.version), question, ", ".join(roles) or "no stage", text[:1].upper() + text[1:])
    return f"| {' | '.join(cells)} |"


def write(pages: Mapping[Path, str]) -> None:
    """Write the pages and print their names."""
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(PAGE_FILE.parent.parent))


if __name__ == "__main__":
    write(reference())
