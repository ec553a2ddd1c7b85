"""Evol Stop: rounds of evolution, each merged, sharded, fine-tuned and scored, until the score falls.

    evolve -> merge -> shard -> fine-tune -> score on a development set -> stop on decline, keep the best

`config` is its file, `rounds` the steps of each round, `development` refuses tasks that are reported, `run` the loop.
"""
