"""What was trained on a GPU (or the software GPU) and saved from its memory opens in TensorFlow.

Environment: FERRY_BIN is the folder with the build's outputs, FERRY_ROOT the checkout.
"""

import json
import os
import subprocess
import tempfile
import unittest

import numpy as np
import tensorflow.compat.v1 as tf

_BIN, _ROOT = os.environ["FERRY_BIN"], os.environ["FERRY_ROOT"]


def on_gpu(*arguments):
    """Runs ferry by tools/softgpu; the CompletedProcess."""
    environment = dict(os.environ, FERRY_SOFTGPU_LIB=os.path.join(_BIN, "tests", "softgpu"))
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.run([os.path.join(_ROOT, "tools", "softgpu"),
                           os.path.join(_BIN, "tools", "ferry"), *map(str, arguments)],
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)


class GpuInteropTest(unittest.TestCase):

    def test_tensorflow_restores_and_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "model")
            result = on_gpu("train", "--device", "gpu", "--model_dir", model, "--steps", 60,
                            "--save_checkpoints_steps", 30, "--seed", 5, "--json")
            if "built without the CUDA toolkit" in result.stderr:
                self.skipTest("this build has no CUDA code")
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertIn("GPU:0", report["device"])
            prefix = tf.train.latest_checkpoint(model)
            self.assertEqual(os.path.basename(prefix), "model.ckpt-60")
            reader = tf.train.load_checkpoint(prefix)
            with tf.Graph().as_default(), tf.Session() as session:
                saver = tf.train.import_meta_graph(prefix + ".meta", clear_devices=True)
                saver.restore(session, prefix)
                for variable in tf.global_variables():
                    np.testing.assert_array_equal(session.run(variable),
                                                  reader.get_tensor(variable.op.name))
                self.assertEqual(session.run("global_step:0"), 60)
                feeds = {"x:0": np.random.RandomState(1).rand(32, 64).astype(np.float32) * 16,
                         "y:0": np.arange(32) % 10}
                before = session.run("loss:0", feeds)
                for _ in range(20):
                    session.run("train_op", feeds)
                self.assertLess(session.run("loss:0", feeds), before)
                moved = saver.save(session, os.path.join(folder, "moved", "model.ckpt"),
                                   global_step=80)
            # And back onto the GPU.
            back = on_gpu("train", "--device", "gpu", "--model_dir", os.path.dirname(moved),
                          "--steps", 100, "--seed", 5, "--json")
            self.assertEqual(back.returncode, 0, back.stderr)
            self.assertEqual(json.loads(back.stdout)["first_step"], 80)


if __name__ == "__main__":
    unittest.main()
