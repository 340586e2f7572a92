"""Writes saved_models/functions: a SavedModel as TensorFlow 2 writes them, of functions.

    x [?,2] -> y, count: three times y = y * w + b, begun with x; the negative of that if its sum is
    above 100; `count` is how often the function was called since it was restored, plus 5.
    w = [2, 3], b = [0.5, 0.25]

Run with the Python of a virtual environment that has tensorflow-cpu 2.21:
python make_saved_functions.py
"""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "saved_models", "functions")


class Model(tf.Module):

    def __init__(self):
        super().__init__()
        self.w = tf.Variable([2.0, 3.0], name="w")
        self.b = tf.Variable([0.5, 0.25], name="b")
        self.count = tf.Variable(5, dtype=tf.int64, name="count")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def predict(self, x):
        self.count.assign_add(1)
        y = x
        for _ in tf.range(3):
            y = y * self.w + self.b
        if tf.reduce_sum(y) > 100.0:
            y = -y
        return {"y": y, "count": self.count.read_value()}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    model = Model()
    tf.saved_model.save(model, OUT, signatures=model.predict)
    os.remove(os.path.join(OUT, "fingerprint.pb"))


if __name__ == "__main__":
    main()
