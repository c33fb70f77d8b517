"""Weights of the PyPI package fastmri, for networks that are the same to the letter."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def norm_unet_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `fastmri_unet`, of the same size, from a `varnet.NormUnet`'s state dict.

    `state` maps names to arrays: torch tensors need `.numpy()` first.
    """
    def block(prefix: str) -> dict[str, Any]:
        return {f"Conv_{i}": {"kernel": np.transpose(state[f"{prefix}.layers.{layer}.weight"],
                                                     (2, 3, 1, 0))}
                for i, layer in enumerate((0, 4))}

    pools = sum(name.endswith("layers.0.weight") for name in state
                if name.startswith("unet.down_sample_layers."))
    unet = {"bottom": block("unet.conv")}
    for level in range(pools):
        up = pools - 1 - level
        unet[f"down_{level}"] = block(f"unet.down_sample_layers.{level}")
        unet[f"merge_{level}"] = block(f"unet.up_conv.{up}" + (".0" if level == 0 else ""))
        kernel = np.transpose(state[f"unet.up_transpose_conv.{up}.layers.0.weight"], (2, 3, 0, 1))
        unet[f"up_{level}"] = {"kernel": kernel}
    last = f"unet.up_conv.{pools - 1}.1"
    unet["last"] = {"kernel": state[f"{last}.weight"][:, :, 0, 0].T, "bias": state[f"{last}.bias"]}
    return {"unet": unet}


def varnet_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `methods.varnet` from a `fastmri.models.VarNet`'s state dict, as above.

    The method has as many `steps` (num_cascades), a `fastmri_unet` of the same size and, if `state`
    holds a network for the coil sensitivities, `learned_maps` of the same size.
    """
    steps = sum(name.endswith(".dc_weight") for name in state)
    prefixes = [f"cascades.{j}." for j in range(steps)]
    nets = [norm_unet_params({name.removeprefix(f"{prefix}model."): array
                              for name, array in state.items() if name.startswith(prefix)})
            for prefix in prefixes]
    sens = {name.removeprefix("sens_net.norm_unet."): array for name, array in state.items()
            if name.startswith("sens_net.")}
    learned = {"sensitivities": {"norm_unet": norm_unet_params(sens)}} if sens else {}
    return learned | {
        "net": jax.tree.map(lambda *arrays: np.stack(arrays), *nets),
        "eta": np.concatenate([state[f"{prefix}dc_weight"] for prefix in prefixes])}
