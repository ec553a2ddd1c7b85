"""The evaluate stage: runs completions against their tests and reports pass@k, beside the training that led to them."""
