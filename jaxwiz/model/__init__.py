"""The Llama decoder: declared with flax.nnx, used everywhere else as a nested dict of arrays and pure functions."""
