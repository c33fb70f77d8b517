"""Scans of a user's own: k-space of many formats as one `Scan`, read slice by slice."""

from flatjax.data.io.kspace.base import Scan, find_mask, slice_with_signal
from flatjax.data.io.kspace.files import find_scans, open_maps, open_mask, open_scan

__all__ = ["Scan", "find_mask", "find_scans", "open_maps", "open_mask", "open_scan",
           "slice_with_signal"]
