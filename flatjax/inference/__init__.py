"""Using a trained model, without a training.

`reconstruct` takes files of k-space and volumes, `pretrained` loads and packs models (those that
are shipped lie in `models/`), `export` writes one file that needs JAX alone, `look` lists what
files hold.
"""
