"""Names of what lies outside of flatjax: what they bring, and one line for what they do not."""

import sys

import pytest

from flatjax import config
from flatjax.data import DATASETS
from flatjax.errors import InputError
from flatjax.flow import SOLVERS
from flatjax.methods import METHODS, MethodSpec

OWN = '''
from __future__ import annotations
from flatjax.flow import runge_kutta
from flatjax import data, methods

SOLVER = runge_kutta(((),), (1.0,), order=1, stability=2.0)
METHOD = methods.zero_filled()


def method(*, combine: str = "sense", strength: float = 2.0) -> methods.Method:
    return methods.zero_filled(combine=combine)


def dataset(*, size: int = 7) -> data.DataSet:
    return 3


def plain(**options):
    return METHOD


def without(network) -> methods.Method:
    return METHOD


SPEC = methods.MethodSpec(method)
'''


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A folder with a module and a broken one, and a package's entry points."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("x = 1 +")
    information = tmp_path / "own-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[flatjax.methods]\nmine = own:SPEC\n"
                                                  "[flatjax.solvers]\nmine = own:SOLVER\n")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own", None)


def test_a_module_brings_methods_solvers_and_data_sets_by_name():
    assert isinstance(METHODS["own:method"], MethodSpec)
    assert config.method("own:method").strength == config.method("own:SPEC").strength == 2.0
    assert SOLVERS["own:SOLVER"].order == 1
    assert config.data("own:dataset", size=3).size == 3
    made = config.method("flat", solver="own:SOLVER")
    assert config.make_method(config.experiment(method=made)).reconstruct
    assert "own:method" not in METHODS and "own:SOLVER" not in SOLVERS


def test_a_saved_config_finds_them():
    saved = config.to_json(config.experiment(method=config.method("own:SPEC", strength=5.0),
                                             data=config.data("own:dataset")))
    again = config.from_json(saved)
    assert config.to_json(again) == saved and again.method.strength == 5.0
    assert config.make_method(again).init(None, None) == {}


def test_an_installed_package_gives_names_by_entry_points(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert config.method("mine").strength == 2.0
    assert config.make_method(config.experiment(method=config.method("flat", solver="mine")))
    with pytest.raises(InputError, match="data.name is 'mine', expected one of brainweb"):
        config.data("mine")


@pytest.mark.parametrize("table, name, words", [
    (METHODS, "falt", "method.name is 'falt', expected one of .*; did you mean 'flat'"),
    (METHODS, "own.method", "expected one of cg_sense, .*, package.module:NAME"),
    (DATASETS, "ibcm", "data.name is 'ibcm', .* did you mean 'icbm'"),
    (SOLVERS, "rk5", "solver is 'rk5', .* did you mean 'rk4'"),
    (METHODS, "nowhere:SPEC", "cannot be imported .ModuleNotFoundError: No module named 'nowhere'.*"
     "start in the folder of that module, or install it"),
    (METHODS, "own:SPCE", "cannot be imported .AttributeError: .* no attribute 'SPCE'"),
    (METHODS, "broken:SPEC", "cannot be imported .SyntaxError: .*broken.py, line 1"),
    (METHODS, "own:", "cannot be imported"),
    (METHODS, "own:plain", "'own:plain', a function, expected a MethodSpec or a function that is "
     "annotated to return a Method"),
    (METHODS, "own:METHOD", "'own:METHOD', a Method, expected a MethodSpec or a function"),
    (METHODS, "os:system", "a builtin_function_or_method, expected a MethodSpec"),
    (METHODS, "own:dataset", "a function, expected a MethodSpec"),
    (DATASETS, "own:method", "expected a function that is annotated to return a DataSet"),
    (DATASETS, "subprocess:run", "a function, expected a function that is annotated to return a D"),
    (SOLVERS, "own:SPEC", "solver is 'own:SPEC', a MethodSpec, expected a Solver"),
])
def test_names_that_bring_nothing_of_use_get_one_line(table, name, words):
    with pytest.raises(InputError, match=words) as refused:
        table[name]
    assert "\n" not in str(refused.value)


def test_what_a_function_cannot_give_is_refused():
    with pytest.raises(InputError, match="method.network has no default, expected one in the func"):
        config.method("own:without")
    with pytest.raises(InputError, match="'own:dataset', whose function returns a int, expected a"):
        config.make_dataset(config.experiment(data=config.data("own:dataset")))
    with pytest.raises(InputError, match="solver is 'imex', expected one of ab2, .*, adaptive"):
        config.make_method(config.experiment(method=config.method("flow_matching", solver="imex")))
