"""What is computed on the host, in NumPy, before a slice becomes a batch.

`masks` draws sampling masks by their `patterns`, `simulate` makes k-space of images,
`sensitivities` estimates coil maps, `coil_compression` reduces the number of coils.
"""
