"""What the peers' scripts share: the command line, the workloads, and the timing.

Every script is called as `ferry bench` is:

    SCRIPT save|restore|run|train [--mib N] [--tensors N] [--dir DIR] [--seconds S] [--threads N]

and prints one JSON object with the keys of `ferry bench --json`. MB are 10^6 bytes.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time

# The networks that are trained: layers' sizes and the batch. Adam, learning rate 1e-3.
DIGITS = ((64, 128, 64, 10), 32)
MNIST = ((784, 1024, 1024, 10), 256)
# Scalar adds, each of the one before.
CHAIN = 1000
# Times that a save or a restore is repeated, after one that isn't counted.
REPEATS = 3


def parse_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("work", choices=("save", "restore", "run", "train"))
    parser.add_argument("--mib", type=int, default=512, help="bytes of all variables together")
    parser.add_argument("--tensors", type=int, default=32, help="variables, all of one size")
    parser.add_argument("--dir", default=None, help="where files are written")
    parser.add_argument("--seconds", type=float, default=2, help="for each rate that is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def floats_per_tensor(args):
    return max(1, args.mib * 2**20 // 4 // args.tensors)


def megabytes(args):
    return floats_per_tensor(args) * args.tensors * 4 / 1e6


@contextlib.contextmanager
def scratch_folder(args):
    """A new folder for a measurement's files, removed after it."""
    if args.dir:
        os.makedirs(args.dir, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="peer-", dir=args.dir)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def median_seconds(call, after=lambda: None):
    """The median time of call(), which after() cleans up behind, without counting."""
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        after()
    return statistics.median(seconds[1:])


def seconds_per_call(call, seconds):
    """The time of one call, from as many as fit into `seconds`."""
    call()
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / calls
        calls = max(calls + 1, int(calls * min(10, 1.2 * seconds / max(elapsed, 1e-9))))


def print_json(**figures):
    print(json.dumps(figures))
