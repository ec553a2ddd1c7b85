"""Insight into a finished evolution: what was kept and why not, how it grew and spread, what it cost, and its lineages.

`rows` reads a run's files, `growth` and `topics` measure its kept rows, `page` makes one HTML file of it all.
"""
