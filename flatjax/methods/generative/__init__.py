"""Generative methods, which sample from a learned prior or posterior.

Flow matching, MC-DDPM, score SDE and DDS; `denoiser` holds what the last three share.
"""
