"""Loops that are built here, with their gradients, run in TensorFlow.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import os
import subprocess
import tempfile
import unittest

import numpy as np
import tensorflow.compat.v1 as tf

_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/loops_program")


class LoopsTest(unittest.TestCase):

    def test_gradients(self):
        with tempfile.TemporaryDirectory() as folder:
            meta = os.path.join(folder, "loops.meta")
            lines = subprocess.run([_PROGRAM, meta], stdout=subprocess.PIPE, check=True, text=True,
                                   timeout=60).stdout.splitlines()
            y, grad_x, grad_w = [np.array(line.split(), np.float32) for line in lines]
            feeds = {"x:0": np.sin(np.arange(1, 7, dtype=np.float32)).reshape(2, 3),
                     "w:0": np.cos(np.arange(1, 10, dtype=np.float32)).reshape(3, 3) / 2}
            with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
                tf.train.import_meta_graph(meta)
                # The gradients that were built here, and those that TensorFlow builds for the loop.
                built = session.run(["y:0", "grad_x:0", "grad_w:0"], feeds)
                tensors = [graph.get_tensor_by_name(name) for name in ("x:0", "w:0")]
                theirs = session.run(tf.gradients(graph.get_tensor_by_name("y:0"), tensors), feeds)
        for found, value in zip((y, grad_x, grad_w), built, strict=True):
            np.testing.assert_allclose(found, np.ravel(value), rtol=1e-4, atol=1e-5)
        for found, value in zip((grad_x, grad_w), theirs, strict=True):
            np.testing.assert_allclose(found, np.ravel(value), rtol=1e-4, atol=1e-5)
        self.assertGreater(np.abs(grad_w).max(), 0.1)


if __name__ == "__main__":
    unittest.main()
