"""Measures PyTorch: torch.save and torch.load, eager ops, and training.

Saves are not durable, and what is loaded is not checked.
"""

import os

import measure

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch  # pylint: disable=wrong-import-position


def tensors(args):
    torch.manual_seed(1)
    size = measure.floats_per_tensor(args)
    return {f"v{i}": torch.rand(size) for i in range(args.tensors)}


def save(args):
    values = tensors(args)
    with measure.scratch_folder(args) as folder:
        path = os.path.join(folder, "model.pt")
        seconds = measure.median_seconds(lambda: torch.save(values, path), lambda: os.unlink(path))
    measure.print_json(save_mb_per_s=measure.megabytes(args) / seconds)


def restore(args):
    """Into tensors that exist, as a model's load_state_dict does it."""
    values = tensors(args)
    with measure.scratch_folder(args) as folder:
        path = os.path.join(folder, "model.pt")
        torch.save(values, path)

        def load():
            for name, value in torch.load(path, mmap=True, weights_only=True).items():
                values[name].copy_(value)

        seconds = measure.median_seconds(load)
    measure.print_json(restore_mb_per_s=measure.megabytes(args) / seconds)


def run(args):
    counter, one = torch.zeros(()), torch.ones(())

    def chain():
        last = counter
        for _ in range(measure.CHAIN):
            last = last + one
        return last

    with torch.inference_mode():
        assign_add = measure.seconds_per_call(lambda: counter.add_(one), args.seconds)
        chain_seconds = measure.seconds_per_call(chain, args.seconds)
    measure.print_json(assign_add_ns=assign_add * 1e9,
                       chain_ns_per_op=chain_seconds / measure.CHAIN * 1e9)


def steps_per_second(args, network):
    sizes, batch = network
    torch.manual_seed(1)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.rand(batch, sizes[0])
    labels = torch.randint(0, sizes[-1], (batch,))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return 1 / measure.seconds_per_call(step, args.seconds)


def train(args):
    measure.print_json(digits_steps_per_s=steps_per_second(args, measure.DIGITS),
                       mnist_steps_per_s=steps_per_second(args, measure.MNIST))


def main():
    args = measure.parse_arguments(__doc__)
    torch.set_num_threads(args.threads)
    {"save": save, "restore": restore, "run": run, "train": train}[args.work](args)


if __name__ == "__main__":
    main()
