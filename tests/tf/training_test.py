"""Looks at what the training loop leaves through TensorFlow and TensorBoard: events, and a meta graph
with moving averages that goes on there.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import os
import subprocess
import tempfile
import unittest

import numpy as np
import tensorflow.compat.v1 as tf
from tensorboard.backend.event_processing import event_accumulator

_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/training_program")

_X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
_Y = (2 * _X[:, :1] - _X[:, 1:] + 1).astype(np.float32)


class TrainingTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        tf.disable_v2_behavior()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.dir = folder.name
        for steps in (35, 60):  # The second start goes on.
            subprocess.run([_PROGRAM, cls.dir, str(steps)], check=True, stderr=subprocess.DEVNULL)

    def test_tensorboard_reads_it(self):
        events = event_accumulator.EventAccumulator(
            self.dir, size_guidance={event_accumulator.SCALARS: 0,
                                     event_accumulator.HISTOGRAMS: 0})
        events.Reload()
        self.assertEqual(sorted(events.Tags()["scalars"]), ["global_step/sec", "loss"])
        self.assertEqual(events.Tags()["histograms"], ["layer/weights"])
        self.assertTrue(events.Tags()["graph"])
        loss = events.Scalars("loss")
        self.assertEqual([e.step for e in loss], [1, 11, 21, 31, 36, 46, 56])
        self.assertLess(loss[-1].value, loss[0].value / 10)
        last = events.Histograms("layer/weights")[-1]
        self.assertEqual(last.step, 56)
        self.assertEqual(last.histogram_value.num, 2)
        names = {node.name for node in events.Graph().node}
        self.assertLessEqual({"x", "layer/w", "loss", "ExponentialMovingAverage"}, names)

    def test_tensorflow_goes_on(self):
        """Averages included: two steps there are what the formula says of the checkpoint's values."""
        prefix = tf.train.latest_checkpoint(self.dir)
        self.assertTrue(prefix.endswith("model.ckpt-60"))
        reader = tf.train.load_checkpoint(prefix)
        average = reader.get_tensor("layer/w/ExponentialMovingAverage")
        with tf.Graph().as_default() as graph, tf.Session() as session:
            saver = tf.train.import_meta_graph(prefix + ".meta")
            saver.restore(session, prefix)
            for step in (61, 62):
                session.run("ExponentialMovingAverage", {"x:0": _X, "y:0": _Y})
                w, shadow, at = session.run(
                    ["layer/w:0", "layer/w/ExponentialMovingAverage:0", "global_step:0"])
                self.assertEqual(at, step)
                average = average - (1 - 0.9) * (average - w)
                np.testing.assert_allclose(shadow, average, rtol=0.02)
            # What the collections hold is what TensorFlow's own would.
            self.assertEqual([v.op.name for v in tf.moving_average_variables()],
                             ["layer/w", "layer/b"])
            ema = tf.train.ExponentialMovingAverage(0.9)
            self.assertIn("layer/w/ExponentialMovingAverage", ema.variables_to_restore())
            # A shadow is initialised from the variable's present value.
            initializer = graph.get_operation_by_name("layer/w/ExponentialMovingAverage/Assign")
            session.run(initializer)
            np.testing.assert_array_equal(
                session.run("layer/w/ExponentialMovingAverage:0"), session.run("layer/w:0"))


if __name__ == "__main__":
    unittest.main()
