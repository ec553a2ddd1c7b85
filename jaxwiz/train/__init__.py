"""The train stage: AdamW fine-tuning of the Llama decoder on packed shards, over a mesh of devices."""
