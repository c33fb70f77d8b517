"""E2E-VarNet's cascades against those of the PyPI package fastmri, in torch, side by side.

    pip install torch runstats && pip install --no-deps fastmri
    python benchmarks/torch_varnet.py --size=128 --batch=4 --channels=8 --pools=3
    python benchmarks/torch_varnet.py --size=320 --batch=1 --channels=18 --pools=4

Inference, and value with gradient of the mean squared error of the k-space, with the same weights
and threads. First shows that output, loss and gradient are equal, then prints JSON: medians in
seconds, torch's over flatjax's, and the compile time.
"""

import argparse
import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path

THREADS = len(os.sched_getaffinity(0))
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import compile_, difference, in_turn, random_batch, report  # noqa: E402

from flatjax import nets  # noqa: E402
from flatjax.methods import varnet  # noqa: E402
from flatjax.nets.fastmri import varnet_params  # noqa: E402


def fastmri_varnet():
    """The module, without fastmri's data readers and what they pull in."""
    package = types.ModuleType("fastmri.data")
    package.__path__ = [str(Path(find_spec("fastmri").origin).parent / "data")]
    sys.modules["fastmri.data"] = package
    from fastmri.models import varnet as module
    return module


def real(array):
    return torch.view_as_real(torch.from_numpy(np.array(array)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("channels", 8), ("pools", 3), ("batch", 4),
                          ("size", 128), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    net = fastmri_varnet().VarNet(num_cascades=options.steps, chans=options.channels,
                                  pools=options.pools)
    with torch.no_grad():  # as in a trained network; otherwise round-off grows with every cascade
        for cascade in net.cascades:
            cascade.model.unet.up_conv[-1][-1].weight.mul_(0.1)
    batch = random_batch(options.batch, options.size)
    measured = batch.measurement
    inputs = (real(measured.kspace), torch.from_numpy(np.array(measured.mask, bool))[..., None],
              real(measured.maps))
    target = real(batch.kspace)

    def torch_forward():
        state = inputs[0]
        for cascade in net.cascades:
            state = cascade(state, *inputs)
        return state

    def torch_inference():
        with torch.no_grad():
            return torch_forward()

    def torch_step():
        net.cascades.zero_grad()
        loss = (torch_forward() - target).square().sum(-1).mean()
        loss.backward()
        return loss

    method = varnet(nets.fastmri_unet(channels=options.channels, pools=options.pools),
                    steps=options.steps)
    names = dict(net.cascades.named_parameters(prefix="cascades"))
    params = jax.tree.map(jnp.asarray, varnet_params(
        {name: weight.detach().numpy() for name, weight in names.items()}))

    def forward(params, measured):
        return method.reconstruct(params, jax.random.key(0), measured).kspace

    def loss(params, batch):
        apart = forward(params, batch.measurement) - batch.kspace
        return jnp.mean(jnp.real(apart) ** 2 + jnp.imag(apart) ** 2)

    inference, inference_compile = compile_(forward, params, measured)
    step, step_compile = compile_(jax.value_and_grad(loss), params, batch)

    theirs = torch.view_as_complex(torch_inference().contiguous()).numpy()
    their_loss = torch_step().item()
    gradient = varnet_params({name: weight.grad.numpy() for name, weight in names.items()})
    our_loss, our_gradient = step(params, batch)
    equal = {"output": difference(inference(params, measured), theirs),
             "loss": abs(float(our_loss) - their_loss) / their_loss,
             "gradient": difference(our_gradient, gradient)}
    assert equal["output"] < 1e-4 and equal["loss"] < 1e-4 and equal["gradient"] < 1e-3, equal

    seconds = in_turn({"inference": lambda: inference(params, measured),
                       "torch_inference": torch_inference,
                       "step": lambda: step(params, batch), "torch_step": torch_step},
                      options.repeats)
    report(options, relative_difference=equal, median_seconds=seconds,
           torch_over_flatjax={name: seconds[f"torch_{name}"] / seconds[name]
                               for name in ("inference", "step")},
           compile_seconds={"inference": inference_compile, "step": step_compile},
           threads=THREADS, torch=torch.__version__)


if __name__ == "__main__":
    main()
