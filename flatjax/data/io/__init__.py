"""Reading files: what is wrong with one becomes an `InputError`, whatever it holds.

`volumes` reads magnitude images (NIfTI, NRRD, MINC, raw), `kspace` scans (NumPy, BART, ISMRMRD,
fastMRI); `fastmri_files`, `fastmri_header` and `fastmri_index` read fastMRI's files slice by
slice, and `hdf5` keeps damaged HDF5 files from harming the process.
"""
