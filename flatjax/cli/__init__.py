"""The command-line program `flatjax`: `commands` with their options, and what they share."""

from flatjax.cli.program import main

__all__ = ["main"]
