"""Evaluate a trained model: `python evaluate.py --workdir=DIR`."""

from flatjax.cli import evaluate_script

if __name__ == "__main__":
    evaluate_script()
