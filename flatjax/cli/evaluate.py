"""The program `evaluate.py`, also installed as `flatjax-evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from flatjax.cli.program import CACHE_USAGE, numbers, run, take, take_all
from flatjax.errors import InputError
from flatjax.experiments.config_file import override

EVALUATE_USAGE = """\
Score a trained model on the test sets of its data.

  evaluate.py --workdir=DIR [--output=DIR2] [--config.key=value ...]

  --workdir  folder of a run made by train.py
  --output   folder for metrics, reconstructions and figures; DIR/eval by default
  --export   instead, write the reconstruction with its weights to a file (docs/export.md)
  --config.* replaces values of the run's own config, as --config.acquisition.acceleration=8

Files without targets are reconstructed, as NAME.h5, NAME.nii and NAME.png:

  evaluate.py --workdir=DIR --input=PATH [--input=PATH ...] --output=DIR2

  --input    file or folder of k-space: .npy, .npz, BART .cfl, fastMRI and ISMRMRD .h5; or a
             magnitude volume, whose acquisition is simulated as --config.acquisition says
  --output   DIR/reconstructions by default; needed with --pretrained
  --mask     .npy or .npz of the sampling mask, where it is not in the data
  --maps     .npy, .npz or .cfl of coil sensitivities, instead of those by ESPIRiT
  --keep-going  leave broken files out, with a line for each, and exit with status 2 at the end

Several runs are compared on the same slices, with the first, in one table and one figure:

  evaluate.py --workdir=A --workdir=B ... --output=DIR [--accelerations=4,8,12]

  --accelerations  evaluate all of them at each of these

A model that is shipped, or was packed, takes the place of a workdir:

  evaluate.py --pretrained=brain --output=DIR [--config.key=value ...]
  evaluate.py --workdir=DIR --pack=FOLDER

  --pretrained  name of a shipped model, or a folder made by --pack
  --pack        write the weights in half precision, their config, scores and model card there
""" + CACHE_USAGE


def evaluate_main() -> None:
    """The program `evaluate.py`, also installed as `flatjax-evaluate`."""
    def main(argv: list[str]) -> None:
        from flatjax.evaluation.evaluate import evaluate
        from flatjax.inference.pretrained import folder, pack
        from flatjax.runs.workdir import load_config
        workdirs, argv = take_all(argv, "workdir")
        names, argv = take_all(argv, "pretrained")
        workdirs += [folder(name) for name in names]
        if not workdirs:
            raise InputError("--workdir is missing, expected --workdir=DIR, or --pretrained=NAME "
                             "(see --help)")
        if names and not take(argv, "export", default="")[0]:
            take(argv, "output")  # a shipped model's folder is no place for results
        inputs, argv = take_all(argv, "input")
        if inputs:
            _reconstruct(workdirs, inputs, argv)
            return
        to, argv = take(argv, "pack", default="")
        accelerations, argv = take(argv, "accelerations", default="")
        file, argv = take(argv, "export", default="")
        several = len(workdirs) > 1 or accelerations
        asked = [name for name, given in (
            ("--pack", to), ("--export", file), ("several runs or --accelerations", several))
            if given]
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} were given, expected one of them at a time")
        output, argv = take(argv, "output", default=None if several else "")
        configs = [override(load_config(workdir), argv) for workdir in workdirs]
        if several:
            from flatjax.evaluation.compare import compare, labels
            compare(dict(zip(labels(workdirs), zip(configs, workdirs, strict=True), strict=True)),
                    output, numbers(accelerations, "accelerations"))
        elif file:
            from flatjax.inference.export import export_run
            export_run(configs[0], workdirs[0], file)
        elif to:
            pack(configs[0], workdirs[0], to, output or None)
        else:
            evaluate(configs[0], workdirs[0], output or None)

    run("evaluate", EVALUATE_USAGE, main)


def _reconstruct(workdirs: Sequence[str | Path], inputs: list[str], argv: list[str]) -> None:
    from flatjax.inference.reconstruct import reconstruct_files
    from flatjax.runs.workdir import load_config
    if len(workdirs) > 1:
        raise InputError(f"{len(workdirs)} workdirs with --input, expected one")
    files = {}
    for name in ("output", "mask", "maps"):
        files[name], argv = take(argv, name, default="")
    keep_going = "--keep-going" in argv
    argv = [argument for argument in argv if argument != "--keep-going"]
    reconstruct_files(override(load_config(workdirs[0]), argv), workdirs[0], inputs,
                      keep_going=keep_going, **files)
