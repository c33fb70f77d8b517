"""Data sets. A new one is one file with a `make` that returns a `DataSet`, and one entry here."""

from flatjax.data import fastmri, icbm, volume
from flatjax.data.base import DataSet, Sample, Volume
from flatjax.data.batches import Acquisition, training_batch

DATASETS = {"fastmri": fastmri.make, "icbm": icbm.make, "volume": volume.make}

__all__ = ["DATASETS", "Acquisition", "DataSet", "Sample", "Volume", "fastmri", "icbm",
           "training_batch", "volume"]
