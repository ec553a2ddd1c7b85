"""Text generators behind one protocol: the local JAX model, OpenAI-compatible endpoints, the Batch API, recordings."""
