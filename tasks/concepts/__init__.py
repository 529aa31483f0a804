"""Neurons in the space of words: embeddings, distances, interpretable neurons, nulls and truth tests."""

from tasks.concepts.distances import anchor_distance
from tasks.concepts.embedding import neuron_embeddings

__all__ = ["anchor_distance", "neuron_embeddings"]
