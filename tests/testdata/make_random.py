"""Writes op_cases/random.pb: random cases of what the other files of op cases leave out.

For each op of docs/ops.md and each dtype of its attributes for which TensorFlow has a kernel on the
CPU there is a case somewhere; this adds those that are missing, and a few of ops that have none.
random_cases.py draws them, from seeds that are the same each time.

Run after the other scripts, with the Python of a virtual environment that has tensorflow-cpu 2.21:
    python make_random.py
"""

import collections
import glob
import os
import zlib

from case_lib import ALL, HERE, CaseFile, NAME_OF, NoKernel, TF_DTYPE, tf, tf1
from random_cases import GENERATORS, Draw, add_case, types_of
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import kernels, op_def_registry

LEAST = 4  # Cases of an op that has none elsewhere.
TRIES = 60  # Draws without a new dtype before an op is given up.


def ops_here():
    with open(os.path.join(HERE, "..", "..", "docs", "ops.md"), encoding="utf-8") as f:
        rows = [line.split("|") for line in f if line.startswith("| ")]
    return [row[1].strip() for row in rows[2:]]


def note(node, seen):
    seen[node.op].update(types_of(node))


def cases_of(path, seen):
    graph = tf1.GraphDef()
    with open(path, "rb") as f:
        graph.ParseFromString(f.read())
    for node in graph.node:
        if node.name.endswith("/apply"):
            apply = node_def_pb2.NodeDef()
            apply.ParseFromString(node.attr["value"].tensor.string_val[0])
            note(apply, seen)
            # The tests run those on handles, too.
            if not apply.op.startswith("Resource"):
                apply.op = "Resource" + apply.op
                apply.attr["dtype"].CopyFrom(apply.attr["T"])
                note(apply, seen)
        elif node.op != "Const":
            note(node, seen)
    for function in graph.library.function:
        for node in function.node_def:
            note(node, seen)


def wanted(op):
    """What TensorFlow's kernels of the op take."""
    pairs = set()
    registered = [k for k in kernels.get_registered_kernels_for_op(op).kernel
                  if k.device_type in ("CPU", "DEFAULT")]
    for attr in op_def_registry.get(op).attr:
        if attr.type not in ("type", "list(type)"):
            continue
        allowed = {tf.as_dtype(t) for t in attr.allowed_values.list.type}
        for kernel in registered or [None]:  # None: TensorFlow replaces the op by others.
            lists = [c.allowed_values.list.type for c in kernel.constraint
                     if c.name == attr.name] if kernel else []
            for d in {tf.as_dtype(t) for t in lists[0]} if lists and lists[0] else NAME_OF:
                if d in NAME_OF and (not allowed or d in allowed):
                    pairs.add((attr.name, NAME_OF[d]))
    return pairs


def main():
    seen = collections.defaultdict(set)
    for path in glob.glob(os.path.join(HERE, "op_cases", "*.pb")) + glob.glob(
            os.path.join(HERE, "philox", "*.pb")):
        if os.path.basename(path) not in ("gradients.pb", "random.pb"):
            cases_of(path, seen)
    f = CaseFile("op_cases/random.pb")
    for op in ops_here():
        count = 0 if op in seen else LEAST
        missing = wanted(op) - seen[op]
        if op not in GENERATORS:
            continue
        draw = Draw(zlib.crc32(op.encode()))
        types, refused, tries = list(ALL), collections.Counter(), 0
        while tries < TRIES and (missing or count > 0):
            tries += 1
            d = types[tries % len(types)]
            if missing and tries % 2:  # One that is missing, if the generator goes by it.
                d = sorted(missing)[draw.int(0, len(missing) - 1)][1]
            if refused[d] > 3:
                continue
            try:
                pairs = add_case(f, draw, op, d, keep=lambda nodes: count > 0 or any(
                    missing & set(types_of(node)) for node in nodes if node.op == op))
            except NoKernel:
                refused[d] += 1
                continue
            if pairs is None:
                continue
            count -= 1
            for other, found in pairs.items():
                seen[other] |= found
            if missing & seen[op]:
                missing -= seen[op]
                tries = 0
        if missing:
            print("missing: %s %s" % (op, sorted(missing)))
    f.write()


if __name__ == "__main__":
    main()
