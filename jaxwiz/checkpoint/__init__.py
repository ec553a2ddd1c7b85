"""Checkpoints: self-describing weight folders that stages exchange, and the full training state that a run resumes."""
