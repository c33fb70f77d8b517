"""The folder of a run, as training leaves it and evaluation finds it.

`workdir` reads its config and weights and says whose it is, `checkpoint` saves and restores,
`weights` packs weights into one file, `hosts` has several processes share a run.
"""
