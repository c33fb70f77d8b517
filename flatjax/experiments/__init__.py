"""Grids of runs: ablations and comparisons that one command trains, evaluates and tables.

`grid` says what runs there are, `run` makes them, `outcomes` keeps what they scored and `report`
writes the table and the figure; `config_file` reads a grid, or one run's config, from a file.
"""
