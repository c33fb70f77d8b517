"""Reading files: whatever is wrong with one becomes one `InputError` that names it.

`volumes` reads magnitude images (NIfTI, NRRD, MINC, raw), `kspace` scans (NumPy, BART, ISMRMRD,
fastMRI); `fastmri_files` and `fastmri_index` read fastMRI's files slice by slice, `header` those of
ISMRMRD, and `hdf5` keeps damaged HDF5 files from harming the process.
"""
