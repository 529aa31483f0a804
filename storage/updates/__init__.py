"""The formats of an update archive: a segment of a training's weight updates in a stage."""
