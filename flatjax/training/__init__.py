"""Training: from a config and a workdir to checkpoints, resumable at any of them.

`train` is the way in, `parallel` the update on many devices, `interruption` what SIGTERM does.
"""
