"""Measures safetensors on NumPy arrays: save_file and safe_open; it neither runs nor trains.

Saves are not durable, and what is loaded is not checked.
"""

import os

import measure

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def arrays(args):
    rng = np.random.default_rng(1)
    size = measure.floats_per_tensor(args)
    return {f"v{i}": rng.random(size, np.float32) for i in range(args.tensors)}


def save(args):
    values = arrays(args)
    with measure.scratch_folder(args) as folder:
        path = os.path.join(folder, "model.safetensors")
        seconds = measure.median_seconds(lambda: save_file(values, path), lambda: os.unlink(path))
    measure.print_json(save_mb_per_s=measure.megabytes(args) / seconds)


def restore(args):
    """Into arrays that exist, as a model's variables do."""
    values = arrays(args)
    with measure.scratch_folder(args) as folder:
        path = os.path.join(folder, "model.safetensors")
        save_file(values, path)

        def load():
            with safe_open(path, framework="numpy") as file:
                for name, value in values.items():
                    value[...] = file.get_tensor(name)

        seconds = measure.median_seconds(load)
    measure.print_json(restore_mb_per_s=measure.megabytes(args) / seconds)


def main():
    args = measure.parse_arguments(__doc__)
    if args.work not in ("save", "restore"):
        raise SystemExit(f"safetensors has nothing to measure for '{args.work}'")
    {"save": save, "restore": restore}[args.work](args)


if __name__ == "__main__":
    main()
