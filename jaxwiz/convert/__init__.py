"""Models in and out: Hugging Face folders and hub repositories, GGUF files, checkpoints."""
