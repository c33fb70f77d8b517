"""Grids of runs: ablations and comparisons that one command trains, evaluates and tables.

`grid` describes and runs them, `report` writes their table and figure.
"""
