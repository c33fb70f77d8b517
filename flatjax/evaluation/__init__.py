"""What a trained model is worth: `evaluate` scores a run on every test set of its data.

`scoring` and `metrics` measure volumes, `trajectory` the states on the way, `statistics` compares
paired scores; `report` and `compare` write tables and figures of one run and of several.
"""
