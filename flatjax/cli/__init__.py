"""The command-line program `flatjax`: flags, and one line for whatever is wrong with the input.

`commands` holds the subcommands and their flags, `program` what they share: parsing, help, errors
and the cache of compiled programs. Both import nothing heavy before a command runs.
"""

from flatjax.cli.program import evaluate_script, main

__all__ = ["evaluate_script", "main"]
