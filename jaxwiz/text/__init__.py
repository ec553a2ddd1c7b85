"""Text to tokens: tokenizers, and instruction templates with the spans that bear loss."""
