"""Models in and out: Hugging Face folders and hub repositories, GGUF and Meta's files, adapters, checkpoints."""
