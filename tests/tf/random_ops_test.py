"""Runs random cases of single ops here and in TensorFlow.

For each op that testdata/random_cases.py can draw: some cases with random dtypes, shapes, values
and attributes. TensorFlow's results and errors go to a file, which op_cases_program compares with
what the session computes here.

Environment: FERRY_BIN is the folder with the build's outputs, FERRY_ROOT the checkout.
The cases are the same each time. RANDOM_OPS_SEED draws others: a number, or "any", whose seed is
printed; RANDOM_OPS_CASES says how many cases an op has, RANDOM_OPS which ops.
"""

import os
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

sys.path.insert(0, os.path.join(os.environ["FERRY_ROOT"], "tests", "testdata"))
# pylint: disable=wrong-import-position
from case_lib import ALL, CaseFile, NoKernel
from random_cases import GENERATORS, Draw, add_case

_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/op_cases_program")
_SECONDS = 40  # For TensorFlow; on a slow machine there are fewer cases, at least one an op.
_LEAST = 300  # Cases in all.


class RandomOpsTest(unittest.TestCase):
    maxDiff = None

    def test_random_cases(self):
        wanted = os.environ.get("RANDOM_OPS_SEED", "1")
        seed = time.time_ns() % 2**31 if wanted == "any" else int(wanted)
        print(f"RANDOM_OPS_SEED={seed}")
        ops = os.environ.get("RANDOM_OPS", "").split() or sorted(GENERATORS)
        with tempfile.TemporaryDirectory() as folder:
            file = CaseFile(os.path.join(folder, "random.pb"))
            start = time.time()
            for k in range(int(os.environ.get("RANDOM_OPS_CASES", 5))):
                for op in ops:
                    if k == 0 or time.time() - start < _SECONDS:
                        # By op and number, so that a case comes again without the others.
                        self._add(file, Draw(seed + k + zlib.crc32(op.encode())), op)
            file.write()
            count = len(file.names)
            result = subprocess.run([_PROGRAM, file.path], stdout=subprocess.PIPE, text=True,
                                    timeout=300, check=True)
        *differences, last = result.stdout.splitlines()
        self.assertEqual(last, f"{count} cases")
        self.assertEqual(differences, [], f"with RANDOM_OPS_SEED={seed}")
        if "RANDOM_OPS" not in os.environ:
            self.assertGreater(count, _LEAST)

    def _add(self, file, draw, op):
        for _ in range(8):  # Dtypes, until there is a kernel.
            try:
                if add_case(file, draw, op, draw.of(*ALL)) is not None:
                    return
            except NoKernel:
                pass


if __name__ == "__main__":
    unittest.main()
