"""Evaluate a trained model: `python evaluate.py --workdir=DIR`."""

import sys

from flatjax.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
