"""Keeps benchmark tasks out of training data."""
