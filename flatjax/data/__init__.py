"""Data sets. A new one is one file with a `make` that returns a `DataSet`, and one entry here."""

from flatjax.data import icbm, volume
from flatjax.data.base import DataSet, Sample, Volume
from flatjax.data.batches import Acquisition, training_batch

DATASETS = {"icbm": icbm.make, "volume": volume.make}

__all__ = ["DATASETS", "Acquisition", "DataSet", "Sample", "Volume", "icbm", "training_batch",
           "volume"]
