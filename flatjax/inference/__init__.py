"""Using a trained model, without a training.

`reconstruct` takes files of k-space and volumes, `measure` makes their slices what methods take,
`pretrained` loads and packs models (those that are shipped lie in `models/`), `export` writes one
file that needs only JAX and flatbuffers, `inspection` lists what files hold.
"""
