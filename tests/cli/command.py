"""Runs the `ferry` command for the tests beside this file, and looks at the files that it leaves."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

FERRY = str(pathlib.Path(os.environ["FERRY_BIN"]) / "tools" / "ferry")
# Nothing here may take longer; a hang is a failure.
TIMEOUT = 60


def ferry(*arguments, **kwargs):
    """Runs ferry to its end; returns the CompletedProcess with text in stdout and stderr."""
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    return subprocess.run([FERRY, *map(str, arguments)], timeout=TIMEOUT, text=True,
                          errors="replace", stdin=subprocess.DEVNULL, check=False, **kwargs)


def newest(folder):
    """The prefix that the state file names, or None without a state file."""
    try:
        state = (folder / "checkpoint").read_text()
    except FileNotFoundError:
        return None
    # The state file's paths are relative to its folder, or absolute.
    path = re.search(r'^model_checkpoint_path: "(.*)"', state, re.MULTILINE).group(1)
    return os.path.join(folder, path)


def listed(folder):
    """The base names of the checkpoints that the state file lists, from the oldest."""
    state = (folder / "checkpoint").read_text()
    paths = re.findall(r'^all_model_checkpoint_paths: "(.*)"', state, re.MULTILINE)
    return [os.path.basename(path) for path in paths]


def data_bytes(prefix):
    """What the data files of a checkpoint hold, in their order."""
    prefix = pathlib.Path(prefix)
    files = sorted(prefix.parent.glob(prefix.name + ".data-*"))
    return b"".join(file.read_bytes() for file in files)


def strays(folder):
    """Temporary files, and files of checkpoints without an index."""
    found = []
    for file in sorted(os.listdir(folder)):
        prefix = re.fullmatch(r"(.*)\.(?:meta|data-\d{5}-of-\d{5})", file)
        if file.endswith(".ferry-tmp") or (
                prefix and not (folder / (prefix.group(1) + ".index")).exists()):
            found.append(file)
    return found


class CommandTest(unittest.TestCase):
    """Gives each test a folder of its own, and words for what ferry did."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="ferry-cli-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def succeeds(self, *arguments, **kwargs):
        """Runs ferry, which must end well; returns its standard output."""
        result = ferry(*arguments, **kwargs)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stdout}{result.stderr}")
        return result.stdout

    def succeeds_json(self, *arguments):
        return json.loads(self.succeeds(*arguments, "--json"))

    def fails(self, *arguments, words, status=1, **kwargs):
        """Runs ferry, which must end with `status` and say all of `words` on standard error."""
        result = ferry(*arguments, **kwargs)
        said = f"{arguments}: status {result.returncode}: {result.stderr}"
        self.assertEqual(result.returncode, status, said)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, result.stderr, said)
        return result
