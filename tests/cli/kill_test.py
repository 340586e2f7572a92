"""Interrupts training: kills it at random moments, stops it, and resumes it; what it reaches must be
bit for bit what an uninterrupted run reaches.
"""

import os
import random
import signal
import subprocess
import time
import unittest

from command import FERRY, CommandTest, data_bytes, ferry, listed, newest, strays

# The data comes out of this order alone; the moments of the kills depend on the machine's load too.
_SEED = 20240229
_KILLS = 30
_KILLS_IN_SAVES = 10
_STEPS = 800  # At least; as many as take this time:
_SECONDS = 8
_OPTIONS = ["--save_checkpoints_steps", 8, "--keep_checkpoint_max", 3, "--threads", 2,
            "--summary_steps", 100]


def _start(folder, *options):
    return subprocess.Popen([FERRY, "train", "--model_dir", str(folder), *map(str, options)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def _unfinished(folder):
    """What tells of a save that isn't complete: its files, and an index that no state file names.

    Each with what tells a file from an older one of the same name.
    """
    if not folder.exists():
        return set()
    names = [n for n in strays(folder) if n.startswith(("model.ckpt", "checkpoint"))]
    complete = listed(folder) if (folder / "checkpoint").exists() else []
    names += [n for n in os.listdir(folder) if n.endswith(".index") and n[:-6] not in complete]
    found = set()
    for name in names:
        info = (folder / name).stat()
        found.add((name, info.st_ino, info.st_mtime_ns))
    return found


class KillTest(CommandTest):

    def assert_same_checkpoint(self, expected, actual):
        self.assertEqual(self.succeeds_json("inspect", expected),
                         self.succeeds_json("inspect", actual))
        self.assertEqual(data_bytes(expected), data_bytes(actual))

    def kill_until_done(self, folder, steps, rng, counts, longest):
        """Starts the run again and again, and kills it, until the counts are reached; finishes it.

        False when it came to its end before.
        """
        while counts["kills"] < _KILLS or counts["in saves"] < _KILLS_IN_SAVES:
            before = _unfinished(folder)
            process = _start(folder, "--steps", steps, *_OPTIONS)
            try:
                output, _ = process.communicate(timeout=rng.uniform(0, longest))
                self.assertEqual(process.returncode, 0, output)
                return False
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                output, _ = process.communicate()
            if process.returncode == 0:  # It was quicker.
                return False
            self.assertEqual(process.returncode, -signal.SIGKILL, output)
            counts["kills"] += 1
            counts["in saves"] += bool(_unfinished(folder) - before)
            if newest(folder):
                self.succeeds("verify", folder)
        self.succeeds("train", "--model_dir", folder, "--steps", steps, *_OPTIONS)
        return True

    def test_kills_at_random_moments(self):
        # As many steps as this machine takes some seconds for, so that 30 kills fall into one run.
        start = time.monotonic()
        self.succeeds("train", "--model_dir", self.folder / "trial", "--steps", _STEPS, *_OPTIONS)
        trial = time.monotonic() - start
        steps = max(_STEPS, int(_STEPS * _SECONDS / trial))
        straight = self.folder / "straight"
        start = time.monotonic()
        report = self.succeeds_json("train", "--model_dir", straight, "--steps", steps, *_OPTIONS)
        seconds = time.monotonic() - start
        self.assertGreaterEqual(report["test_accuracy"], 0.97)
        self.assertEqual(report["last_step"], steps)

        rng = random.Random(_SEED)
        counts = {"kills": 0, "in saves": 0}
        # On a machine that became quicker meanwhile a run ends too early: then another one starts.
        for chain in range(5):
            folder = self.folder / f"killed{chain}"
            enough = self.kill_until_done(folder, steps, rng, counts, 1.2 * seconds / _KILLS + 0.1)
            self.assert_same_checkpoint(newest(straight), newest(folder))
            if enough:
                break
        self.assertGreaterEqual(counts["kills"], _KILLS)
        self.assertGreaterEqual(counts["in saves"], _KILLS_IN_SAVES)

        # What kills left behind, a later save has cleared.
        for where in (folder, straight):
            self.succeeds("train", "--model_dir", where, "--steps", steps + 1, *_OPTIONS)
        self.assertEqual(strays(folder), [])
        self.assert_same_checkpoint(newest(straight), newest(folder))
        self.assertEqual(len(listed(folder)), 3)
        for name in listed(folder):
            self.succeeds("verify", folder / name)

    def test_sigterm_saves_and_ends(self):
        options = ["--steps", 10**9, "--save_checkpoints_steps", 10**6, "--threads", 1,
                   "--summary_steps", 10]
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name):
                folder = self.folder / number.name
                process = _start(folder, *options)
                while not newest(folder):  # Its first checkpoint, of step 0.
                    self.assertIsNone(process.poll())
                    time.sleep(0.01)
                time.sleep(0.5)
                process.send_signal(number)
                output, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 0, output)
                self.assertIn("stopped at step ", output)
                prefix = newest(folder)
                step = int(prefix.rpartition("-")[2])
                self.assertGreater(step, 0)
                self.assertIn(f"stopped at step {step} ", output)
                self.succeeds("verify", folder)
                # It goes on where it stopped, and is then as if it had never stopped.
                report = self.succeeds_json("train", "--model_dir", folder, "--steps", step + 5,
                                            "--threads", 1)
                self.assertEqual((report["first_step"], report["last_step"]), (step, step + 5))
                straight = self.folder / f"straight-{number.name}"
                self.succeeds("train", "--model_dir", straight, "--steps", step + 5,
                              "--save_checkpoints_steps", 10**6, "--threads", 1)
                self.assert_same_checkpoint(newest(straight), newest(folder))

    def test_sigterm_at_any_moment(self):
        rng = random.Random(_SEED)
        folder = self.folder / "model"
        stopped = 0
        for number in range(12):
            events = set(folder.glob("events.out.*"))
            process = _start(folder, "--steps", 10**9, *_OPTIONS)
            # Every other time it may still be starting.
            while number % 2 == 0 and set(folder.glob("events.out.*")) == events:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            # It ends like any program as long as there is nothing to save.
            self.assertIn(process.returncode, (0, -signal.SIGTERM), output)
            if process.returncode == 0:
                stopped += 1
                self.assertIn("stopped at step ", output)
                step = output.partition("stopped at step ")[2].split()[0]
                self.assertTrue(newest(folder).endswith("model.ckpt-" + step), output)
            if newest(folder):
                self.succeeds("verify", folder)
        self.assertGreaterEqual(stopped, 6)
        self.assertEqual(strays(folder), [])

    def test_two_in_one_directory(self):
        # By mistake. Whatever comes of it, what is there is sound, and can be gone on with.
        options = ["--save_checkpoints_steps", 20, "--keep_checkpoint_max", 0, "--threads", 1]
        both = [_start(self.folder, "--steps", 300, "--seed", seed, *options) for seed in (1, 2)]
        for process in both:
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, output)
        for index in self.folder.glob("*.index"):
            self.succeeds("verify", index.with_suffix(""))
        self.assertTrue(newest(self.folder).endswith("model.ckpt-300"))
        self.assertEqual(strays(self.folder), [])
        report = self.succeeds_json("train", "--model_dir", self.folder, "--steps", 320, *options)
        self.assertEqual((report["first_step"], report["last_step"]), (300, 320))

    def test_fewer_steps_than_the_checkpoint_has(self):
        self.succeeds("train", "--model_dir", self.folder, "--steps", 40)
        before = data_bytes(newest(self.folder))
        result = ferry("train", "--model_dir", self.folder, "--steps", 30)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("at step 40", result.stderr)
        self.assertIn("done at step 40 (from 40", result.stdout)
        self.assertTrue(newest(self.folder).endswith("model.ckpt-40"))
        self.assertEqual(data_bytes(newest(self.folder)), before)
        self.succeeds("verify", self.folder)

    def test_keep_checkpoint_max(self):
        train = ["train", "--model_dir", self.folder, "--save_checkpoints_steps", 10]
        self.succeeds(*train, "--steps", 60, "--keep_checkpoint_max", 0)
        steps = lambda: sorted(int(f.stem.rpartition("-")[2])
                               for f in self.folder.glob("model.ckpt-*.index"))
        self.assertEqual(steps(), list(range(0, 61, 10)))
        self.assertEqual(listed(self.folder), [f"model.ckpt-{n}" for n in range(0, 61, 10)])
        # Those that a resumed run finds count too, and a lower number takes effect at once.
        self.succeeds(*train, "--steps", 70, "--keep_checkpoint_max", 2)
        self.assertEqual(steps(), [60, 70])
        self.assertEqual(listed(self.folder), ["model.ckpt-60", "model.ckpt-70"])
        self.assertEqual(strays(self.folder), [])
        self.succeeds(*train, "--steps", 75, "--keep_checkpoint_max", 1)
        self.assertEqual(steps(), [75])
        self.succeeds("verify", self.folder)

    def test_skip_busy_saves(self):
        # A save takes longer than a step: some of those that are due at every step are skipped.
        report = self.succeeds_json("train", "--model_dir", self.folder, "--steps", 200,
                                    "--save_checkpoints_steps", 1, "--skip_busy_saves")
        self.assertGreater(report["skipped_saves"], 0)
        # Of the first step, of each step; the last one isn't skipped, but waits.
        self.assertLessEqual(report["saves"] + report["skipped_saves"], 202)
        self.assertGreaterEqual(report["saves"] + report["skipped_saves"], 201)
        self.assertTrue(report["checkpoint"].endswith("model.ckpt-200"), report["checkpoint"])
        self.succeeds("verify", self.folder)
        self.assertEqual(strays(self.folder), [])

    def test_resumes_without_a_state_file(self):
        # As after a kill between a first index and the state file.
        self.succeeds("train", "--model_dir", self.folder, "--steps", 100,
                      "--save_checkpoints_steps", 30)
        (self.folder / "checkpoint").unlink()
        report = self.succeeds_json("train", "--model_dir", self.folder, "--steps", 110)
        self.assertEqual((report["first_step"], report["last_step"]), (100, 110))
        self.assertEqual(listed(self.folder)[-2:], ["model.ckpt-100", "model.ckpt-110"])


if __name__ == "__main__":
    unittest.main()
