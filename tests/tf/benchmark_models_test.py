"""Runs benchmarks/models.py on a model and a SavedModel.

Environment: FERRY_BIN is the folder with the build's outputs, FERRY_ROOT the checkout.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

_MODELS = os.path.join(os.environ["FERRY_ROOT"], "benchmarks", "models.py")
_FERRY = os.path.join(os.environ["FERRY_BIN"], "tools", "ferry")


def _models(*arguments, ferry=_FERRY):
    return subprocess.run([sys.executable, _MODELS, "--ferry", ferry, "--rounds", "1", "--seconds",
                           "0.01", *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


class BenchmarkModelsTest(unittest.TestCase):

    def test_table(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "results.json")
            slow = {"ferry": 1.0, "tensorflow": 1e-12, "ratio": 1e-12, "least": 1e-12,
                    "most": 1e-12}
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"before": slow, "mlp_l2: training": slow}, file)
            result = _models("--only", "^mlp_l2$|^SavedModel module_convnet$", "--results", path)
            self.assertEqual(result.returncode, 0, result.stderr)
            with open(path, encoding="utf-8") as file:
                results = json.load(file)
        names = ["before", "SavedModel module_convnet: serving_default", "mlp_l2: training"]
        self.assertEqual(set(results), set(names))
        for name in names[1:]:
            # What stood there for the model was measured again.
            self.assertGreater(results[name]["ratio"], 1e-6)
            self.assertLess(results[name]["ferry"], 1)
        rows = [line for line in result.stdout.splitlines() if line.startswith("|")][2:]
        self.assertEqual(len(rows), 3)
        self.assertIn("| before | 1 | 1,000,000,000,000 | **0.00**", rows[0])
        faster = sum(results[name]["ratio"] >= 1 for name in names)
        self.assertIn(f"{faster} of 3 are as fast or faster here; the least: before (0.00), ",
                      result.stdout)

    def test_errors(self):
        result = _models(ferry="/nonexistent/ferry")
        self.assertEqual(result.returncode, 2)
        self.assertIn("bazel build //tools:ferry", result.stderr)
        result = _models("--rounds", "0")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--rounds is below 1", result.stderr)


if __name__ == "__main__":
    unittest.main()
