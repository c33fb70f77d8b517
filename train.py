"""Train a model: `python train.py --config=configs/demo.py --workdir=DIR`."""

from flatjax.cli import train_main

if __name__ == "__main__":
    train_main()
