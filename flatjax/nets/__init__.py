"""Learned functions: networks on images, which know nothing of k-space or flows.

`conv` holds the layers of `unet`; `norm_unet` makes of it a network on complex images,
`sensitivities` one that estimates coil maps; `fastmri` converts weights of fastMRI's VarNet.
"""

from flatjax.nets.norm_unet import NormUNet
from flatjax.nets.sensitivities import SensitivityNet
from flatjax.nets.unet import UNet

__all__ = ["NormUNet", "SensitivityNet", "UNet"]
