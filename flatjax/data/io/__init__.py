"""Reading files: whatever is wrong with one becomes one `InputError` that names it.

`volumes` reads magnitude images (NIfTI, NRRD, MINC, raw), `kspace` scans (NumPy, BART, ISMRMRD,
fastMRI); `fastmri` reads fastMRI's files slice by slice and keeps an index of them, `header` reads
ISMRMRD's headers, and `hdf5` keeps damaged HDF5 files from harming the process.
"""
