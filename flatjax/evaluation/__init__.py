"""What a trained model is worth: `evaluate` scores a run on every test set of its data.

`scoring` and `metrics` measure volumes and the states in between, `statistics` compares paired
scores. `tables` and `figures` report them: for one run, for several side by side (`compare`) and
for the grids of `flatjax.experiments`.
"""
