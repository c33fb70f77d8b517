"""The folder of a run, as training leaves it and evaluation finds it.

`checkpoint` writes and reads weights, `weights` packs them into one file, `hosts` has several
processes share a run.
"""
