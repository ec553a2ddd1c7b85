"""Benchmarks: their tasks, how a model is asked about one, and how code is taken out of what it answers.

The same functions serve the stage that samples and the stage that scores, which do not import each other.
"""
