"""The data stage: instructions with answers become packed rows of tokens, and the feed reads them in batches."""
