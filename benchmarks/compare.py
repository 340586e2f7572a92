#!/usr/bin/env python3
"""Sets `ferry bench` beside TensorFlow, PyTorch and safetensors, and prints a table in Markdown.

    bazel build //tools:ferry
    VENV/bin/python benchmarks/compare.py [--rounds 9] [--work save,restore,…] [--dir DIR]

The peers run in the Python that runs this script: the packages tensorflow-cpu, torch, safetensors
and numpy. What isn't installed there is skipped, and said to be. In every round each contestant
runs once, one after the other, so that a machine that grows slower does so for all of them; a ratio
is the median of the rounds' ratios, and above 1 Ferry is better.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parent.parent

# The peers, by the package that each needs.
_PEERS = {"TensorFlow": "tensorflow", "PyTorch": "torch", "safetensors": "safetensors"}

# Works: the arguments for `ferry bench` and for the peers' scripts (a {mib} is filled in), and the
# figures: key, what the table says, and whether more is better.
_WORKS = {
    "save": (["save", "--mib", "{mib}", "--tensors", "32"],
             [("save_mb_per_s", "save {mib} MiB in 32 variables, MB/s", True),
              ("save_with_meta_and_state_ms", "the same with .meta and state file, ms", False)]),
    "restore": (["restore", "--mib", "{mib}", "--tensors", "32"],
                [("restore_mb_per_s", "restore {mib} MiB in 32 variables, MB/s", True)]),
    "save_small": (["save", "--mib", "1", "--tensors", "2000"],
                   [("save_mb_per_s", "save 1 MiB in 2,000 variables, MB/s", True),
                    ("save_with_meta_and_state_ms", "the same with .meta and state file, ms",
                     False)]),
    "restore_small": (["restore", "--mib", "1", "--tensors", "2000"],
                      [("restore_mb_per_s", "restore 1 MiB in 2,000 variables, MB/s", True)]),
    "run": (["run"], [("assign_add_ns", "a prepared run of one AssignAdd, ns", False),
                      ("chain_ns_per_op", "an op in a chain of 1,000 scalar adds, ns", False)]),
    "train": (["train"],
              [("digits_steps_per_s", "training 64-128-64-10, batch 32, Adam, steps/s", True),
               ("mnist_steps_per_s", "training 784-1024-1024-10, batch 256, Adam, steps/s", True)]),
}
# What `ferry bench` measures as the limit in the same run, by the figure that it limits.
_LIMITS = {"save_mb_per_s": "raw_direct_fsync_mb_per_s", "restore_mb_per_s": "raw_read_mb_per_s"}


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ferry", default=str(_ROOT / "bazel-bin" / "tools" / "ferry"),
                        help="the program (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", default=",".join(_WORKS), help="some of %(default)s")
    parser.add_argument("--mib", type=int, default=512, help="size of the large save and restore")
    parser.add_argument("--dir", default=None, help="where files are written (default: /tmp)")
    parser.add_argument("--seconds", type=float, default=2,
                        help="for each of the peers' rates (default: %(default)s)")
    args = parser.parse_args()
    args.work = args.work.split(",")
    unknown = [work for work in args.work if work not in _WORKS]
    if unknown or args.rounds < 1:
        parser.error(f"unknown work: {', '.join(unknown)}" if unknown else "--rounds is below 1")
    if not os.access(args.ferry, os.X_OK):
        parser.error(f"there is no program {args.ferry}: bazel build //tools:ferry")
    return args


def _find_peers():
    """The peers that can run here, and a line for each that can't."""
    peers, skipped = [], []
    for name, package in _PEERS.items():
        missing = [p for p in ("numpy", package) if importlib.util.find_spec(p) is None]
        if missing:
            skipped.append(f"{name} is skipped: {sys.executable} has no package "
                           f"{' and no '.join(missing)}.")
        else:
            peers.append(name)
    return peers, skipped


def _measure(command):
    """Runs the command; what it prints, from its last line that begins one, is a JSON object."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {result.returncode}:\n"
                         f"{result.stderr}")
    lines = result.stdout.splitlines()
    first = max((i for i, line in enumerate(lines) if line.startswith("{")), default=0)
    return json.loads("\n".join(lines[first:]))


def _commands(args, work, peers):
    """The command of each contestant that takes part in this work."""
    arguments = [part.format(mib=args.mib) for part in _WORKS[work][0]]
    if args.dir:
        arguments += ["--dir", args.dir]
    commands = {"Ferry": [args.ferry, "bench", *arguments, "--json"]}
    for name in peers:
        if name == "safetensors" and arguments[0] not in ("save", "restore"):
            continue
        script = _ROOT / "benchmarks" / "peers" / f"{name.lower()}_peer.py"
        commands[name] = [sys.executable, str(script), *arguments, "--seconds", str(args.seconds)]
    return commands


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cell(rounds, name, key, more_is_better):
    """A contestant's median, and Ferry's median ratio to it."""
    if key not in rounds[0].get(name, {}):
        return ""
    theirs = [r[name][key] for r in rounds]
    ratios = [r["Ferry"][key] / r[name][key] for r in rounds]
    if not more_is_better:
        ratios = [1 / ratio for ratio in ratios]
    return f"{_number(statistics.median(theirs))} (**{_number(statistics.median(ratios))}**)"


def _limit_cell(rounds, key):
    limit = _LIMITS.get(key)
    if limit is None or limit not in rounds[0]["Ferry"]:
        return ""
    limits = [r["Ferry"][limit] for r in rounds]
    ratios = [r["Ferry"][key] / r["Ferry"][limit] for r in rounds]
    return f"{_number(statistics.median(limits))} (**{_number(statistics.median(ratios))}**)"


def main():
    args = _parse_arguments()
    if args.dir:
        os.makedirs(args.dir, exist_ok=True)
    peers, skipped = _find_peers()
    for line in skipped:
        print(line, file=sys.stderr)
    table = [["", "Ferry", *peers, "the machine's limit"]]
    for work in args.work:
        commands = _commands(args, work, peers)
        rounds = []
        for i in range(args.rounds):
            print(f"{work}, round {i + 1} of {args.rounds}", file=sys.stderr)
            rounds.append({name: _measure(command) for name, command in commands.items()})
        for key, title, more_is_better in _WORKS[work][1]:
            ferry = statistics.median(r["Ferry"][key] for r in rounds)
            table.append([title.format(mib=args.mib), _number(ferry),
                          *(_cell(rounds, name, key, more_is_better) for name in peers),
                          _limit_cell(rounds, key)])
            # A long comparison that is cut off has said something.
            print("| " + " | ".join(table[-1]) + " |", file=sys.stderr)
    table.insert(1, ["---"] + ["---:"] * (len(table[0]) - 1))
    print(f"\nMedians of {args.rounds} interleaved rounds; in brackets how many times better "
          "Ferry is.\n")
    for row in table:
        print("| " + " | ".join(row) + " |")
    for line in skipped:
        print(f"\n{line}")


if __name__ == "__main__":
    main()
