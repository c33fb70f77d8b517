"""Methods by their names and options."""

from flatjax import config
from flatjax.experiments.grid import changed
from flatjax.options import flattened

SMALL = {"steps": 2, "channels": 2, "pools": 1, "time_channels": 4}


def build(name, **options):
    """The method of that name; a part's option is written with two underscores.

    `build("flat", schedule__steps=3, space__name="image", combine="rss")`
    """
    changes = {key.replace("__", "."): value for key, value in options.items()}
    return config.make_method(changed(
        config.experiment(method=config.method(name)),
        {key if key == "combine" else f"method.{key}": value for key, value in changes.items()}))


def shrunk(name, **more):
    """The method of that name, small; of more options those that it or its parts have."""
    wanted = SMALL | more
    return build(name, **{key.replace(".", "__"): wanted[key.split(".")[-1]]
                          for key in flattened(config.method(name))
                          if key.split(".")[-1] in wanted})
