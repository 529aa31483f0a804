"""Who taught a neuron its concept: stages that join questions 3 and 4 of one network."""
