import contextlib

import torch

cpu = device = torch.device("cpu")
dtype = dtype_unet = dtype_vae = torch.float32
fp8 = force_fp16 = unet_needs_upcast = False
nv_rng = None


def autocast():
    return contextlib.nullcontext()


def torch_gc():
    pass
