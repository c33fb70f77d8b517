"""The command-line program `flatjax`: options, and one line for whatever is wrong with the input.

`commands` holds the subcommands and their options, `program` what they share: parsing, help, errors
and the cache of compiled programs. Both import nothing heavy before a command runs.
"""

from flatjax.cli.program import main

__all__ = ["main"]
