"""The torch side of `accelerator.py`, in a process of its own: fastMRI's VarNet cascades.

Reads cases, one line of JSON each, and answers with one line. With `"prepare": true` it runs the
case once, which compiles what is compiled, and gives the seconds of that; else it measures. With
`"save"` it writes weights, result, loss and gradient there, numpy's `.npz`.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from accelerator_cases import make_batch
from torch_varnet import fastmri_varnet, real

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class Cascades:
    """Networks by size and kind, eager or compiled; with the same weights every time."""

    def __init__(self):
        self.module = fastmri_varnet()
        self.known = {}

    def __call__(self, steps, channels, pools, compiled):
        """All cascades as one module, and each as it is to be called."""
        key = steps, channels, pools
        if key not in self.known:
            torch.manual_seed(0)
            net = self.module.VarNet(num_cascades=steps, chans=channels, pools=pools)
            with torch.no_grad():  # as in a trained network: see torch_varnet.py
                for cascade in net.cascades:
                    cascade.model.unet.up_conv[-1][-1].weight.mul_(0.1)
            self.known[key] = net.cascades.to(DEVICE)
        cascades = self.known[key]
        if not compiled:
            return cascades, list(cascades)
        if (key, "compiled") not in self.known:
            self.known[key, "compiled"] = [torch.compile(cascade, dynamic=False)
                                           for cascade in cascades]
        return cascades, self.known[key, "compiled"]


def serve(case, cascades):
    """What one case gives, as a dictionary."""
    tf32 = case["precision"] == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True  # XLA chooses among its algorithms, too
    weights, blocks = cascades(case["steps"], case["channels"], case["pools"], case["compiled"])
    batch = make_batch(case["batch"], case["coils"], case["size"])
    measured = batch.measurement
    kspace, maps, target = (real(array).to(DEVICE)
                            for array in (measured.kspace, measured.maps, batch.kspace))
    mask = torch.from_numpy(measured.mask > 0)[..., None].to(DEVICE)

    def forward():
        state = kspace
        for block in blocks:
            state = block(state, kspace, mask, maps)
        return state

    def inference():
        with torch.no_grad():
            return forward()

    def step():
        weights.zero_grad()
        loss = (forward() - target).square().sum(-1).mean()
        loss.backward()
        return loss

    call = inference if case["work"] == "inference" else step
    start = time.perf_counter()
    call()
    synchronize()
    answer = {"first_seconds": time.perf_counter() - start}
    if case.get("save"):
        loss = step().item()
        names = dict(weights.named_parameters(prefix="cascades"))
        np.savez(case["save"], loss=loss,
                 output=torch.view_as_complex(inference().contiguous()).cpu().numpy(),
                 **{f"weight {name}": value.detach().cpu().numpy()
                    for name, value in names.items()},
                 **{f"gradient {name}": value.grad.cpu().numpy()
                    for name, value in names.items()})
    if case.get("prepare"):
        return answer
    if DEVICE == "cuda":
        weights.zero_grad()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    while len(times) < 4 or (sum(times) < case["budget"] and len(times) < 20):
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    if DEVICE == "cuda":
        answer["memory_MiB"] = torch.cuda.max_memory_allocated() / 2**20
        answer["reserved_MiB"] = torch.cuda.max_memory_reserved() / 2**20
    return answer | {"seconds": float(np.median(times[1:]))}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    cascades = Cascades()
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda,
                      "cudnn": torch.backends.cudnn.version()}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = serve(json.loads(line), cascades)
        except Exception as error:  # told, and the next case is served
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
