"""Evaluate a trained model: `python evaluate.py --workdir=DIR`."""

from flatjax.cli import evaluate_main

if __name__ == "__main__":
    evaluate_main()
