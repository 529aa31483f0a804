"""Training: loops and their parts, in torch, without stores."""
