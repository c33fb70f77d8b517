"""What is computed on the host, in NumPy, before a slice becomes a batch.

`masks` and `poisson` draw sampling masks, `simulate` makes k-space of images, `sensitivities`
estimates coil maps, `coil_compression` reduces the number of coils.
"""
