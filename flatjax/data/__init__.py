"""Data sets. A new one is a file in `sets/` whose `make` returns a `DataSet`, and an entry here.

`base` is what every data set offers, `batches` measures their slices, `slices` and `subjects` make
slices of volumes and of folders of them, `splits` says who is trained on, `io` reads files.
`CHECKS` are of those whose options have to agree with the rest of a config.
"""

from flatjax.data.acquisition import Acquisition
from flatjax.data.base import DataSet, Sample, Volume
from flatjax.data.batches import training_batch
from flatjax.data.sets import brainweb, fastmri, folder, heads, icbm, mrbrains13, scans, volume
from flatjax.registry import Registry

DATASETS = Registry("data.name", "flatjax.datasets", {
    module.__name__.rpartition(".")[2]: module.make
    for module in (brainweb, fastmri, folder, heads, icbm, mrbrains13, scans, volume)},
    made=DataSet)
CHECKS = {"fastmri": fastmri.check_config, "scans": scans.check_config}

__all__ = ["CHECKS", "DATASETS", "Acquisition", "DataSet", "Sample", "Volume", "brainweb",
           "fastmri", "folder", "heads", "icbm", "mrbrains13", "scans", "training_batch", "volume"]
