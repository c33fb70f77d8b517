"""The data sets, one file each with a `make(**options)` that returns a `DataSet`.

`icbm` and `heads` come with the package; `volume` and `folder` read any magnitude volumes;
`brainweb`, `mrbrains13` and `fastmri` read the files that these are distributed as. `tissues` holds
what brains are simulated from.
"""
