"""Which packages are installed; all else is in setup.cfg.

The folder configs/ is installed as `flatjax.configs`, for `--config=NAME` where no checkout is.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["flatjax", "flatjax.*"]), "flatjax.configs"],
      package_dir={"flatjax.configs": "configs"})
