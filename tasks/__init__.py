"""What is computed: pure numerics, the steps that store their results, and the workers that run them."""
