"""The program `flatjax`: help that imports nothing heavy, and one line for a wrong command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flatjax
from flatjax import cli
from flatjax.cli.commands import COMMANDS
from flatjax.errors import Terminated

ROOT = Path(__file__).parents[2]
HEAVY = "jax", "numpy", "matplotlib", "ml_collections", "h5py", "flax", "scipy"
HELP = f"""
import sys
from flatjax import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("heavy:", sorted({{*{HEAVY!r}}} & {{*sys.modules}}))
"""


def fails(capsys, *arguments):
    """The line on stderr of a command line that is refused."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_lists_all_options_and_imports_nothing_heavy(command):
    done = subprocess.run([sys.executable, "-c", HELP, *filter(None, [command]), "--help"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    if not command:
        assert all(f"  {name} " in done.stdout for name in COMMANDS)
        return
    assert done.stdout.startswith(f"usage: flatjax {command} ")
    for option in COMMANDS[command].options:
        assert f"\n  --{option}" in done.stdout
    text = " ".join(done.stdout.split())
    assert ("list all keys of the config" in text) == (command != "inspect")


def test_the_program_tells_its_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"flatjax {flatjax.__version__}\n"


def test_a_command_line_without_arguments_gets_the_help_and_status_2(capsys):
    for arguments, words in (([], "usage: flatjax SUBCOMMAND"), (["train"], "--workdir=DIR")):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2 and words in capsys.readouterr().out


@pytest.mark.parametrize("arguments, words", [
    (["trian", "--config=demo"], "no subcommand 'trian', expected one of train, evaluate, "),
    (["trian", "--config=demo"], "did you mean train?"),
    (["train", "--config=demo", "--wrokdir=x"], "did you mean --workdir?"),
    (["reconstruct", "a.npy", "--keep-goin"], "did you mean --keep-going?"),
    (["train", "--config=demo", "--cofnig.train.steps=1"], "did you mean --config.train.steps?"),
    (["evaluate", "--steps=1"], "keys of the config --config.KEY=VALUE"),
    *((["train", "--config=demo", "--workdir=x", f"--config.{key}"], words) for key, words in (
        ("trian.steps=1", "no key 'trian.steps', expected one that --show-config lists; did you "
         "mean --config.train.steps?"),
        ("steps=1", "--config.method.schedule.steps or --config.train.steps?"),
        ("method.network.chanels=1", "did you mean --config.method.network.channels?"),
        ("acquisition.accel=8", "did you mean --config.acquisition.acceleration?"),
        ("acquisition.mask=randm", "mask is 'randm', expected one of random, "),
        ("acquisition.mask=randm", "did you mean 'random'?"),
        ("method.name=vanila", "did you mean 'vanilla'?"), ("data.name=icmb", "mean 'icbm'?"),
        ("method.solver=eulr", "did you mean 'euler'?"),
        ("data.fov[2]=300", "index out of range"), ("qqq=1", "no key 'qqq'"))),
    (["train", "--config=demo", "--workdir"], "argument --workdir: expected one argument"),
    (["train", "--config=demo", "--dry-run=perhaps"], "--dry-run: ignored explicit argument"),
    (["train", "--config=demo"], "--workdir is missing"),
    (["evaluate", "--workdir=a", "x.npy"], "unexpected argument 'x.npy'"),
    (["evaluate", "--workdir=a", "--pretrained=multicoil"], "flatjax compare takes several"),
    (["evaluate", "--workdir=a", "--config.x=1", "--input=b"], "unexpected argument '--input=b'"),
    (["inspect", "a.npy", "--config.seed=1"], "unexpected argument '--config.seed=1'"),
    (["reconstruct", "--pretrained=multicoil", "--output=x"], "no input, expected files"),
    (["compare", "--workdir=a", "--output=x", "--accelerations=4,x"], "'4,x', expected numbers"),
])
def test_a_wrong_command_line_gets_one_line(capsys, arguments, words):
    assert words in fails(capsys, *arguments)


def test_all_keys_of_a_config_are_listed_as_the_command_line_takes_them(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--config=demo", "--config.train.steps=7", "--show-config"])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0 and "--config.train.steps=7" in lines
    assert "--config.data.name=heads" in lines and "--config.acquisition.noise=0.01" in lines
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--pretrained=multicoil", "--show-config"])
    assert "--config.data.matrix=128" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("error, status, words", [
    (Terminated("asked to stop by SIGINT; saved at step 3", 130), 130, "saved at step 3"),
    (Terminated("asked to stop by SIGTERM"), 143, "SIGTERM"),
    (KeyboardInterrupt(), 130, "interrupted; what was not saved before is lost")])
def test_a_program_that_is_stopped_says_what_it_saved(capsys, monkeypatch, error, status, words):
    def stopped(values):
        raise error

    monkeypatch.setitem(COMMANDS, "inspect", COMMANDS["inspect"]._replace(run=stopped))
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", "a.npy"])
    line = capsys.readouterr().err
    assert stop.value.code == status and words in line and line.count("\n") == 1


def test_a_reader_who_has_enough_ends_the_program_quietly(capsys, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setitem(COMMANDS, "inspect", COMMANDS["inspect"]._replace(
        run=lambda values: print("a line")))
    with os.fdopen(writing, "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stop:
            cli.main(["inspect", "a.npy"])
    assert stop.value.code == 141 and not capsys.readouterr().err


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_scripts_answer_help(script):
    done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, env=os.environ)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: flatjax {script.removesuffix('.py')} ")
