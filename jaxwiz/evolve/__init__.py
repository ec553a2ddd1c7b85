"""Evol-Instruct: seed instructions evolve, round by round, into a harder and wider set with answers.

    seeds -> [ draw an operation -> evolve -> judge -> answer -> eliminate ] x rounds -> evolved.jsonl, rejected.jsonl

`engine` is the algorithm, `operations` and `prompts/` are its wording, `eliminate` its rules, `draw` its only source of
chance, and `journal` what makes a killed run continue without asking anything twice.
"""
