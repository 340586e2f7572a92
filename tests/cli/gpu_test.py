"""Trains on a GPU, or on the software GPU where there is none: killed and resumed, moved between the
devices, measured.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

from command import FERRY, CommandTest, data_bytes, newest

_ROOT = pathlib.Path(os.environ["FERRY_ROOT"])
_STEPS = 600
# Sums are taken in another order than on the CPU.
_ACCURACY_TOLERANCE = 0.015


def _environment():
    environment = dict(os.environ)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment["FERRY_SOFTGPU_LIB"] = os.path.join(os.environ["FERRY_BIN"], "tests", "softgpu")
    return environment


def _command(*arguments):
    return [str(_ROOT / "tools" / "softgpu"), FERRY, *map(str, arguments)]


class GpuTest(CommandTest):

    def setUp(self):
        super().setUp()
        if "built without the CUDA toolkit" in self.run_on_gpu(
                "train", "--model_dir", self.folder / "probe", "--device", "gpu", "--steps", 1,
                check=False).stderr:
            self.skipTest("this build has no CUDA code")

    def run_on_gpu(self, *arguments, check=True):
        result = subprocess.run(_command(*arguments), env=_environment(), timeout=300, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, check=False)
        if check:
            self.assertEqual(result.returncode, 0, f"{arguments}: {result.stdout}{result.stderr}")
        return result

    def train(self, folder, steps, *options):
        out = self.run_on_gpu("train", "--device", "gpu", "--model_dir", folder, "--steps", steps,
                              "--save_checkpoints_steps", 40, "--seed", 3, "--json", *options)
        return json.loads(out.stdout)

    def test_killed_and_resumed_reaches_what_the_cpu_reaches(self):
        folder = self.folder / "gpu"
        rng = random.Random(7)
        kills = 0
        while kills < 4:
            process = subprocess.Popen(
                _command("train", "--device", "gpu", "--model_dir", folder, "--steps", _STEPS,
                         "--save_checkpoints_steps", 40, "--seed", 3),
                env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True)
            before = newest(folder)
            # Not before it has saved, so that there is something to resume.
            while process.poll() is None and newest(folder) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        self.assertGreaterEqual(kills, 2)
        report = self.train(folder, _STEPS)
        self.assertGreater(report["first_step"], 0)
        self.assertEqual(report["last_step"], _STEPS)
        self.assertIn("GPU:0", report["device"])

        straight = self.train(self.folder / "straight", _STEPS)
        # The same order of sums each time: equal bit for bit.
        self.assertEqual(data_bytes(report["checkpoint"]), data_bytes(straight["checkpoint"]))

        cpu = self.succeeds_json("train", "--device", "cpu", "--model_dir", self.folder / "cpu",
                                 "--steps", _STEPS, "--seed", 3)
        self.assertAlmostEqual(report["test_accuracy"], cpu["test_accuracy"],
                               delta=_ACCURACY_TOLERANCE)
        self.assertGreater(report["test_accuracy"], 0.95)

    def test_checkpoints_move_between_devices(self):
        folder = self.folder / "model"
        self.train(folder, 80)
        cpu = self.succeeds_json("train", "--device", "cpu", "--model_dir", folder, "--steps", 120,
                                 "--seed", 3)
        self.assertEqual(cpu["first_step"], 80)
        gpu = self.train(folder, 160)
        self.assertEqual(gpu["first_step"], 120)
        self.succeeds("verify", folder)

    def test_bench_tells_of_staging(self):
        for what, keys in [("save", ["pinned_copy_mb_per_s", "pageable_copy_mb_per_s",
                                     "staging_to_pinned", "overlap", "stall_ms"]),
                           ("restore", ["pinned_copy_mb_per_s", "ratio_to_pinned"])]:
            out = self.run_on_gpu("bench", what, "--device", "gpu", "--mib", 8, "--tensors", 4,
                                  "--rounds", 1, "--dir", self.folder, "--json").stdout
            for key in keys:
                self.assertIn(key, json.loads(out))

    def test_says_what_is_missing(self):
        self.fails("train", "--device", "gpu", "--model_dir", self.folder / "none",
                   words=["no GPU can be used"])
