"""The command-line programs: flags, and one line for whatever is wrong with the input.

`train`, `evaluate` and `look` are one program each; `program` holds what they share.
"""

from flatjax.cli.evaluate import evaluate_main
from flatjax.cli.look import look_main
from flatjax.cli.train import train_main

__all__ = ["evaluate_main", "look_main", "train_main"]
