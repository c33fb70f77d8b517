"""The vanilla unrolled network on the demo's data and budget: FLAT's three changes undone.

Step sizes eta and lambda are learned without constraint, as in E2E-VarNet, and nothing aligns the
intermediate images; network, data, loss on the result, seed and number of steps are the demo's.

    python train.py --config=configs/demo_vanilla.py --workdir=runs/demo_vanilla
"""

from ml_collections import ConfigDict

from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    vanilla = load_config_file("demo")
    vanilla.method.step_sizes = "free"
    vanilla.method.w_velocity = 0.0
    return vanilla
