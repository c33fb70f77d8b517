"""What the phase of a scan costs a model that was trained on other phases.

    python benchmarks/receiver_phase.py --workdir=runs/singlecoil

The test images of a run with one coil get a further phase, the same everywhere as of a receiver,
or smooth. Mean PSNR over the volumes: as it is ("plain"), turned by one angle ("turned"), and as
`flatjax reconstruct` prepares k-space, which also takes the low-resolution phase out.
"""

import argparse

import jax
import numpy as np

from flatjax import config as configuration
from flatjax.data.batches import measure_volume
from flatjax.data.prepare import Prepared, prepare
from flatjax.evaluation import metrics
from flatjax.inference.reconstruct import reconstruct_slices
from flatjax.mri import Measurement
from flatjax.mri.host.simulate import acquire, complex_noise, host_fft2c, host_ifft2c, image_phase
from flatjax.runs.workdir import load_config, load_params

SEED = 3
PHASES = {"0": (0.0, 0.0), "1 rad": (1.0, 0.0), "2 rad": (2.0, 0.0), "pi": (np.pi, 0.0),
          "smooth, 1 rad rms": (0.0, 1.0), "smooth, 2 rad rms": (0.0, 2.0)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    workdir = parser.parse_args().workdir
    config = load_config(workdir)
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    params, _ = load_params(workdir, config, method)
    test = configuration.make_dataset(config).test
    volumes = [measure_volume(volume, acquisition) for part in test.values() for volume in part]

    @jax.jit
    def reconstruct(params, rng, measurement):
        return {"image": method.reconstruct(params, rng, measurement).image}

    def add_phase(one, rng, constant, smooth):
        phase = image_phase(rng, one.kspace.shape[-2:], smooth) * np.exp(1j * constant)
        kspace = host_fft2c(host_ifft2c(one.kspace) * phase)
        noise = complex_noise(rng, kspace.shape, acquisition.noise)
        mask = one.measurement.mask[0]
        return acquire(kspace, mask, noise), mask

    def plain(kspace, mask):
        whole = np.ascontiguousarray(np.broadcast_to(mask, kspace.shape), np.float32)
        return Prepared(Measurement(kspace, whole, np.ones_like(kspace)), 1.0)

    def turned(kspace, mask):
        return prepare(kspace, mask, np.ones_like(kspace))

    print("| phase added | plain | turned | prepared |\n|---|---|---|---|")
    for name, (constant, smooth) in PHASES.items():
        scores = []
        for how in (plain, turned, prepare):
            psnr = []
            for slices in volumes:
                rng = np.random.default_rng(SEED)

                prepared = [how(*add_phase(one, rng, constant, smooth)) for one in slices]
                images = [found["image"] for _, found in reconstruct_slices(
                    reconstruct, params, jax.random.key(0), prepared, 8)]
                target = np.stack([one.target for one in slices])
                psnr.append(metrics.psnr(prediction=np.stack(images), target=target))
            scores.append(f"{np.mean(psnr):.2f}")
        print(f"| {name} | {' | '.join(scores)} |", flush=True)


if __name__ == "__main__":
    main()
