"""Writes op_cases/kernel_dtypes.txt: which dtypes TensorFlow's CPU kernels take.

A line a kernel that is registered for the CPU: the op, then each type attribute that the kernel
constrains as name=dtype,dtype..., separated by tabs; * where nothing is constrained. Kernels of one
op that differ in a single attribute share a line. Run with the Python of a virtual environment that
has tensorflow-cpu 2.21: python make_kernel_dtypes.py
"""

import os

from case_lib import HERE

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels


def ops_here():
    """The ops of docs/ops.md."""
    with open(os.path.join(HERE, "..", "..", "docs", "ops.md"), encoding="utf-8") as f:
        rows = [line.split("|") for line in f if line.startswith("| ")]
    return [row[1].strip() for row in rows[2:]]


def dtype(enum):
    return types_pb2.DataType.Name(enum)[3:].lower()


def merge(constraints):
    """Joins those that agree in all attributes but one."""
    merged = []
    for c in constraints:
        for m in merged:
            differ = [a for a in c if sorted(c[a]) != sorted(m.get(a, []))]
            if set(m) == set(c) and len(differ) <= 1:
                for a in differ:
                    m[a] = sorted(set(m[a] + c[a]))
                break
        else:
            merged.append(dict(c))
    return merged


def main():
    lines = []
    for op in ops_here():
        seen = []
        for k in kernels.get_registered_kernels_for_op(op).kernel:
            if k.device_type not in ("CPU", "DEFAULT"):
                continue
            c = {
                a.name: [dtype(t) for t in a.allowed_values.list.type
                        ] for a in k.constraint if a.allowed_values.list.type
            }
            seen.append(c)
        if not seen:  # TensorFlow replaces it by others.
            continue
        if all(not c for c in seen):
            lines.append(op + "\t*")
            continue
        merged = merge(merge(seen))
        for m in sorted(merged, key=str):
            lines.append(op + "\t" +
                         "\t".join("%s=%s" % (a, ",".join(sorted(m[a]))) for a in sorted(m)))
    with open(os.path.join(HERE, "op_cases", "kernel_dtypes.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
