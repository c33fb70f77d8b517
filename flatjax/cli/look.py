"""The program `flatjax-look`."""

from flatjax.cli.program import run, take
from flatjax.errors import InputError

LOOK_USAGE = """\
List what files of k-space and volumes hold, and draw a slice of each kind.

  flatjax-look PATH [PATH ...] [--output=DIR]

  PATH      file, or folder that is searched with all below it: .npy, .npz, BART .cfl, fastMRI and
            ISMRMRD .h5, NIfTI, NRRD, MINC
  --output  folder for the pictures; look by default
"""


def look_main() -> None:
    """The program `flatjax-look`."""
    def main(argv: list[str]) -> None:
        from flatjax.inference.look import look
        output, argv = take(argv, "output", default="look")
        paths = [argument for argument in argv if not argument.startswith("-")]
        if len(paths) < len(argv) or not paths:
            stray = next((a for a in argv if a.startswith("-")), "no path")
            raise InputError(f"{stray}, expected paths and perhaps --output=DIR (see --help)")
        _, errors = look(paths, output)
        if errors:
            raise InputError(f"{len(errors)} broken files, named above")

    run("look", LOOK_USAGE, main)
