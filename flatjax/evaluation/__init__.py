"""What a trained model is worth: `evaluate` scores a run on every test set of its data.

`scoring` and `metrics` measure volumes, `trajectory` the states on the way, `statistics` compares
paired scores; `report` writes the tables and figures of one run, `compare` those of several.
"""
