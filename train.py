"""Train a model: `python train.py --config=configs/demo.py --workdir=DIR`."""

import sys

from flatjax.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
