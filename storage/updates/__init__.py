"""The formats of an update archive: what a segment of a training's weight updates looks like in a stage."""
