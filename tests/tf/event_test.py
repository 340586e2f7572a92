"""Reads an event file that this project wrote, through TensorFlow's reader and TensorBoard's.

Environment: FERRY_BIN is the folder with the build's outputs.
"""

import glob
import os
import subprocess
import tempfile
import unittest

import tensorflow.compat.v1 as tf
from tensorboard.backend.event_processing import event_accumulator

_PROGRAM = os.path.join(os.environ["FERRY_BIN"], "tests/tf/event_program")


class EventTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.logdir = os.path.join(folder.name, "a", "b")
        subprocess.run([_PROGRAM, cls.logdir], check=True)
        paths = glob.glob(os.path.join(cls.logdir, "events.out.tfevents.*"))
        assert len(paths) == 1, paths
        cls.events = list(tf.train.summary_iterator(paths[0]))

    def test_order_and_kinds(self):
        kinds = [event.WhichOneof("what") for event in self.events]
        self.assertEqual(kinds, ["file_version", "graph_def", "meta_graph_def"] +
                         ["summary"] * 101 + ["session_log"] + ["summary"] * 10)
        self.assertEqual(self.events[0].file_version, "brain.Event:2")
        times = [event.wall_time for event in self.events]
        self.assertEqual(times, sorted(times))

    def test_graph(self):
        graph = tf.GraphDef.FromString(self.events[1].graph_def)
        self.assertEqual([node.name for node in graph.node], ["x"])
        meta_graph = tf.MetaGraphDef.FromString(self.events[2].meta_graph_def)
        self.assertEqual(meta_graph.graph_def, graph)
        tf.import_graph_def(graph)

    def test_histogram_is_tensorflows(self):
        values = [(i * i % 97 - 48) * 0.25 for i in range(500)]
        with tf.Graph().as_default(), tf.Session() as session:
            theirs = tf.Summary.FromString(
                session.run(tf.summary.histogram("weights", tf.constant(values, tf.float32))))
        self.assertEqual(self.events[103].summary.value[0].histo, theirs.value[0].histo)
        self.assertEqual(self.events[103].step, 100)

    def test_tensorboard(self):
        events = event_accumulator.EventAccumulator(
            self.logdir, size_guidance={event_accumulator.TENSORS: 0, event_accumulator.SCALARS: 0})
        events.Reload()
        # The log of a new start at step 50 takes away what was recorded from there on.
        loss = [(event.step, event.value) for event in events.Scalars("training/loss")]
        self.assertEqual([step for step, _ in loss], list(range(60)))
        self.assertAlmostEqual(loss[3][1], 0.25)
        self.assertEqual(loss[55][1], 0.5)
        self.assertEqual(len(events.Graph().node), 1)


if __name__ == "__main__":
    unittest.main()
