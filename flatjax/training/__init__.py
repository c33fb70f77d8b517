"""Training: from a config and a workdir to checkpoints, resumable at any of them.

`train` is the way in, `loop` takes the steps and `parallel` is the update on many devices.
"""
