"""Text generators: one protocol, and behind it the local JAX model, any OpenAI-compatible endpoint, or a recording."""
