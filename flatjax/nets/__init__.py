"""Learned functions: networks on images, which know nothing of k-space or flows."""

from flatjax.nets.norm_unet import NormUNet
from flatjax.nets.sensitivities import SensitivityNet
from flatjax.nets.unet import UNet

__all__ = ["NormUNet", "SensitivityNet", "UNet"]
