"""The sampler: batched generation with a key/value cache, and the stage that answers a benchmark with it."""
