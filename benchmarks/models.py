#!/usr/bin/env python3
"""Runs graphs that TensorFlow wrote here and in TensorFlow, and prints in Markdown who is faster.

    bazel build //tools:ferry
    VENV/bin/python benchmarks/models.py [--rounds 5] [--seconds 0.1] [--only REGEX] …

A step of training of every model of tests/tf/graph_models and of large_models.py, the inference of
the latter, and the signatures of the SavedModels: the same files, feeds and number of threads on
both sides. Here `ferry run --repeat` runs the steps, in TensorFlow a callable that the session
made. Every round measures one after the other, so that a machine that grows slower does so for
both; a ratio is the median of the rounds' ratios, and above 1 Ferry is faster.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

_ROOT = pathlib.Path(__file__).resolve().parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(_ROOT / "tests" / "tf"))

# pylint: disable=wrong-import-position
import numpy as np
import tensorflow.compat.v1 as tf

import graph_models
import large_models

tf.logging.set_verbosity(tf.logging.ERROR)

# Steps of a round: at least so many, however long one takes.
_FEWEST_STEPS = 10
_TIMEOUT = 300


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ferry", default=str(_ROOT / "bazel-bin" / "tools" / "ferry"),
                        help="the program (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1,
                        help="for each side in a round (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="works whose names this finds")
    parser.add_argument("--results", default=None,
                        help="a JSON file to add to: what stands in it is printed as well, unless "
                             "it is measured again")
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds is below 1" if args.rounds < 1 else "--seconds is not positive")
    if not os.access(args.ferry, os.X_OK):
        parser.error(f"there is no program {args.ferry}: bazel build //tools:ferry")
    return args


@dataclasses.dataclass(frozen=True)
class _Work:
    """A call that is measured, and how both sides get at it."""
    name: str
    graph: list  # Arguments for `ferry run`.
    load: object  # Puts graph and variables into a session of TensorFlow's.
    feeds: dict  # From tensors' names to arrays.
    targets: list  # Nodes' names.


def _node(name):
    return name.split(":")[0]


def _model_works(model, folder, inference):
    """Of a model that TensorFlow writes into the folder."""
    made = graph_models.make(model)
    prefix = os.path.join(folder, "model")
    with tf.Session(graph=made.graph) as session, made.graph.as_default():
        saver = tf.train.Saver()
        session.run(made.init)
        saver.save(session, prefix)

    def load(session):
        tf.train.import_meta_graph(prefix + ".meta").restore(session, prefix)

    graph = ["--meta", prefix + ".meta", "--checkpoint", prefix]

    def feeds(step):
        return {name + ":0": np.asarray(value) for name, value in model.batch(step).items()}

    yield _Work(f"{model.name}: training", graph, load, feeds(0), [_node(made.train)])
    if inference:
        # Not what only training needs.
        needed = tf.graph_util.extract_sub_graph(made.graph.as_graph_def(),
                                                 [_node(name) for name in made.outputs])
        kept = {node.name for node in needed.node}
        fed = {name: value for name, value in feeds(None).items() if _node(name) in kept}
        yield _Work(f"{model.name}: inference", graph, load, fed,
                    [_node(name) for name in made.outputs])


def _saved_model_works(saved_model, folder):
    path = os.path.join(folder, "saved_model")
    calls = saved_model.write(path)
    with tf.Session(graph=tf.Graph()) as session:
        signatures = tf.saved_model.load(session, ["serve"], path).signature_def

    def load(session):
        tf.saved_model.load(session, ["serve"], path)

    for key, (inputs, outputs) in calls.items():
        signature = signatures[key]
        yield _Work(f"SavedModel {saved_model.name}: {key}", ["--saved_model", path], load,
                    {signature.inputs[name].name: np.asarray(value)
                     for name, value in inputs.items()},
                    sorted({_node(signature.outputs[name].name) for name in outputs}))


def _sources(args):
    """Pairs: a name, and a function that writes its files into a folder and returns the works."""
    for model in large_models.MODELS:
        yield model.name, lambda folder, model=model: _model_works(model, folder, True)
    for model in graph_models.MODELS:
        yield model.name, lambda folder, model=model: _model_works(model, folder, False)
    for saved in graph_models.SAVED_MODELS:
        yield f"SavedModel {saved.name}", lambda folder, saved=saved: _saved_model_works(saved,
                                                                                       folder)


class _Here:
    """A work in `ferry run`."""

    def __init__(self, args, work, folder):
        self._command = [args.ferry, "run", "--device", "cpu", "--threads", str(args.threads),
                         "--json", *work.graph]
        for i, (name, value) in enumerate(work.feeds.items()):
            path = os.path.join(folder, f"fed-{i}.npy")
            np.save(path, value)
            self._command += ["--feed", f"{name}={path}"]
        for target in work.targets:
            self._command += ["--target", target]

    def seconds(self, steps):
        """Of one of so many."""
        # The process is a fresh one: as many steps warm it up.
        result = subprocess.run([*self._command, "--repeat", str(2 * steps)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                timeout=_TIMEOUT, check=False)
        if result.returncode != 0:
            raise RuntimeError(result.stderr.strip())
        return json.loads(result.stdout)["last_half_seconds"] / steps


class _There:
    """A work in TensorFlow, until close()."""

    def __init__(self, args, work):
        config = tf.ConfigProto(intra_op_parallelism_threads=args.threads,
                                inter_op_parallelism_threads=args.threads)
        self._session = tf.Session(graph=tf.Graph(), config=config)
        graph = self._session.graph
        with graph.as_default():
            work.load(self._session)
            tensors = [graph.get_tensor_by_name(name) for name in work.feeds]
            targets = [graph.get_operation_by_name(name) for name in work.targets]
            self._call = self._session.make_callable(targets, feed_list=tensors)
        self._feeds = list(work.feeds.values())
        self._call(*self._feeds)  # Optimises the graph.

    def seconds(self, steps):
        """Of one of so many."""
        call, feeds = self._call, self._feeds
        start = time.perf_counter()
        for _ in range(steps):
            call(*feeds)
        return (time.perf_counter() - start) / steps

    def close(self):
        self._session.close()


def _steps_for(side, seconds):
    """How many steps take so long."""
    steps = _FEWEST_STEPS
    while True:
        elapsed = steps * side.seconds(steps)
        if elapsed >= seconds / 4:
            return max(_FEWEST_STEPS, round(steps * seconds / elapsed))
        steps = min(10 * steps, round(steps * seconds / max(elapsed, 1e-6)) + 1)


def _measure(args, work, folder):
    """Medians: the seconds of a step here and there, and the ratio of those to these."""
    here, there = _Here(args, work, folder), _There(args, work)
    try:
        ours, theirs = _steps_for(here, args.seconds), _steps_for(there, args.seconds)
        rounds = [(here.seconds(ours), there.seconds(theirs)) for _ in range(args.rounds)]
    finally:
        there.close()
    return {"ferry": statistics.median(r[0] for r in rounds),
            "tensorflow": statistics.median(r[1] for r in rounds),
            "ratio": statistics.median(r[1] / r[0] for r in rounds),
            "least": min(r[1] / r[0] for r in rounds),
            "most": max(r[1] / r[0] for r in rounds)}


def _rate(seconds):
    return f"{1 / seconds:,.0f}" if seconds < 0.01 else f"{1 / seconds:.3g}"


def _print_table(results, rounds):
    rows = sorted(results.items(), key=lambda item: item[1]["ratio"])
    faster = sum(result["ratio"] >= 1 for _, result in rows)
    print(f"\nMedians of {rounds} interleaved rounds, sorted by how many times faster Ferry is; in "
          "brackets the\nleast and the most of the rounds.\n")
    print("| | Ferry, runs/s | TensorFlow, runs/s | times faster |")
    print("| --- | ---: | ---: | ---: |")
    for name, result in rows:
        print(f"| {name} | {_rate(result['ferry'])} | {_rate(result['tensorflow'])} | "
              f"**{result['ratio']:.2f}** ({result['least']:.2f} to {result['most']:.2f}) |")
    worst = ", ".join(f"{name} ({result['ratio']:.2f})" for name, result in rows[:5])
    print(f"\n{faster} of {len(rows)} are as fast or faster here; the least: {worst}.")


def main():
    args = _parse_arguments()
    results = {}
    if args.results and os.path.exists(args.results):
        with open(args.results, encoding="utf-8") as file:
            results = json.load(file)
    for name, write in _sources(args):
        # A model's works begin with its name.
        if not re.search(args.only, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for work in write(folder):
                results[work.name] = result = _measure(args, work, folder)
                print(f"{work.name}: {result['ratio']:.2f}", file=sys.stderr)
        # A long comparison that is cut off has said something.
        if args.results:
            with open(args.results, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=1)
    if results:
        _print_table(results, args.rounds)


if __name__ == "__main__":
    main()
