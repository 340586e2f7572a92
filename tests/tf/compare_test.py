"""Runs benchmarks/compare.py with TensorFlow's own figures and made-up ones for the program.

Environment: FERRY_ROOT is the checkout.
"""

import os
import stat
import subprocess
import sys
import tempfile
import unittest

_COMPARE = os.path.join(os.environ["FERRY_ROOT"], "benchmarks", "compare.py")

# Stands for `ferry`.
_PROGRAM = """#!/bin/sh
case "$1 $2" in
"bench save") echo '{"save_mb_per_s": 1e12, "raw_direct_fsync_mb_per_s": 2e12,
                    "save_with_meta_and_state_ms": 1e-6}';;
"bench run") printf '{\\n "assign_add_ns": 1e-3,\\n "chain_ns_per_op": 1e12\\n}\\n';;
*) echo "wrong arguments: $*" >&2; exit 2;;
esac
"""


class CompareTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.program = os.path.join(self.folder, "ferry")
        with open(self.program, "w", encoding="utf-8") as file:
            file.write(_PROGRAM)
        os.chmod(self.program, stat.S_IRWXU)

    def compare(self, *arguments, program=None):
        return subprocess.run([sys.executable, _COMPARE, "--ferry", program or self.program,
                               "--rounds", "1", "--mib", "1", "--seconds", "0.05", "--dir",
                               self.folder, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)

    def test_table(self):
        result = self.compare("--work", "save,run")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in result.stdout.splitlines() if line.startswith("|")]
        self.assertEqual(rows[0][:3], ["", "Ferry", "TensorFlow"])
        self.assertEqual(rows[0][-1], "the machine's limit")
        self.assertEqual(len(rows), 2 + 2 + 2)
        save, whole, assign_add, chain = rows[2:]
        self.assertEqual(save[0], "save 1 MiB in 32 variables, MB/s")
        self.assertEqual(save[1], "1,000,000,000,000")
        self.assertEqual(save[-1], "2,000,000,000,000 (**0.5**)")

        def ratio(row):
            return float(row[2].split("**")[1].replace(",", ""))

        # Better is above 1, whether more or less of the figure is better.
        self.assertGreater(ratio(save), 1)
        self.assertGreater(ratio(whole), 1)
        self.assertGreater(ratio(assign_add), 1)
        self.assertLess(ratio(chain), 1)
        # Packages that this environment lacks are named.
        for package in ("torch", "safetensors"):
            if len(rows[0]) == 4:
                self.assertIn(f"has no package {package}", result.stdout)
        # The peers cleaned up.
        self.assertEqual(os.listdir(self.folder), ["ferry"])

    def test_errors(self):
        result = self.compare("--work", "restore")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("wrong arguments: bench restore", result.stderr)
        result = self.compare("--work", "flying")
        self.assertEqual(result.returncode, 2)
        self.assertIn("unknown work: flying", result.stderr)
        result = self.compare(program="/nonexistent/ferry")
        self.assertEqual(result.returncode, 2)
        self.assertIn("bazel build //tools:ferry", result.stderr)


if __name__ == "__main__":
    unittest.main()
