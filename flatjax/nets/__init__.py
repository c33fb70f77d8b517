"""Learned functions: networks on images, which know nothing of k-space or flows.

`conv` holds the layers of `unet`; `image_unet` makes of it networks on complex images,
`sensitivities` one that estimates coil maps; `fastmri` converts the weights of its VarNet.
A method takes any flax module that maps images `[batch, y, x]` complex64, and a time `t` `[batch]`
if it has one, to one image: those here are made by functions that check their arguments.
"""

from flatjax.nets.image_unet import ImageUNet, fastmri_unet, image_unet, plain_unet, unet
from flatjax.nets.sensitivities import SENSITIVITIES, SensitivityNet, given_maps, learned_maps
from flatjax.nets.unet import UNet

__all__ = ["SENSITIVITIES", "ImageUNet", "SensitivityNet", "UNet", "fastmri_unet",
           "given_maps", "image_unet", "learned_maps", "plain_unet", "unet"]
