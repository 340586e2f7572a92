"""What test.sh runs: the build with its tests, the command's tests, those beside TensorFlow, and one
closing line.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import test_summary

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SANITIZERS = ("asan", "ubsan", "tsan")


def _parse_arguments():
    parser = argparse.ArgumentParser(
        prog="test.sh", description="Builds everything and runs all tests.")
    parser.add_argument("--long", action="store_true",
                        help="also the long tests, and the C++ tests under each sanitizer")
    for name in _SANITIZERS:
        parser.add_argument("--" + name, dest="sanitizers", action="append_const", const=name,
                            help=f"only the C++ tests, in the {name} configuration")
    return parser.parse_args()


class _Phases:
    """Measures the parts of a run."""

    def __init__(self):
        self.rows = []

    @contextlib.contextmanager
    def measure(self, name):
        start = time.time()
        try:
            yield
        finally:
            self.add(name, time.time() - start)

    def add(self, name, seconds):
        self.rows.append((name, seconds))

    def print(self):
        rows = self.rows + [("all", sum(seconds for _, seconds in self.rows))]
        print("\nminutes  phase")
        for name, seconds in rows:
            print(f"{seconds / 60:7.1f}  {name}")


def _bazel(command, *arguments, config=None, **kwargs):
    config = [f"--config={config}"] if config else []
    return subprocess.run(["bazel", command, *config, *arguments], cwd=_ROOT, **kwargs)


def _run_bazel_tests(long, config=None):
    with tempfile.NamedTemporaryFile(suffix=".json") as events:
        arguments = [f"--build_event_json_file={events.name}", "--keep_going", "--noshow_progress"]
        if long:
            arguments += ["--test_tag_filters=", "--test_env=FERRY_LONG_TESTS=1"]
        if config:
            arguments.append("--build_tests_only")
        status = _bazel("test", *arguments, "//...", config=config).returncode
        counts = test_summary.count_bazel(events.name, left_out=() if long else ("long",))
    if status and not counts.failed:
        counts.fail(f"bazel test ended with status {status}")
    return counts


def _prepare_venv(name, requirements):
    """Installs the pinned packages into a folder, unless they are there; returns its Python."""
    venv = _ROOT / name
    python = venv / "bin" / "python"
    requirements = _ROOT / requirements
    # A copy that is written last tells that the installation was complete.
    installed = venv / "installed.txt"
    if not installed.exists() or installed.read_bytes() != requirements.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-cache-dir", "-r", requirements], check=True)
        installed.write_bytes(requirements.read_bytes())
    return python


def _prepare_cuda():
    """Where there is no CUDA toolkit, installs one from Python's packages into .cuda/, so that the
    CUDA code is built and tested here too: on the software GPU, if there is no other."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    if (os.environ.get("FERRY_CUDA") == "0" or shutil.which("nvcc") or
            any(home and os.access(home + "/bin/nvcc", os.X_OK) for home in homes)):
        return
    _prepare_venv(".cuda", "tests/gpu/requirements.txt")
    home = next((_ROOT / ".cuda").glob("lib/python3*/site-packages/nvidia/cu13"))
    for library in (home / "lib").glob("*.so.13"):
        link = library.with_suffix("")  # What the linker looks for, which the packages lack.
        if not link.exists():
            link.symlink_to(library.name)
    os.environ["CUDA_HOME"] = str(home)


def _run_python_test(python, test, environment):
    label = str(test.relative_to(_ROOT))
    # Run from its folder, so that tests import their shared helpers by name.
    result = subprocess.run([python, "-m", "unittest", test.stem], cwd=test.parent,
                            env=environment, text=True, errors="replace",
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    counts = test_summary.count_unittest(result.stdout, result.returncode, label)
    print(f"{label}: {counts}", flush=True)
    if counts.failed:
        print(result.stdout, flush=True)
    return counts


def _run_python_tests(folder, python, environment, phases):
    counts = test_summary.Counts()
    for test in sorted((_ROOT / "tests" / folder).glob("*_test.py")):
        with phases.measure(str(test.relative_to(_ROOT))):
            counts += _run_python_test(python, test, environment)
    return counts


def _run_all_python_tests(long, phases):
    """The tests of the command with this Python, and those beside TensorFlow with another."""
    bin_folder = _bazel("info", "bazel-bin", check=True, stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL, text=True).stdout.strip()
    environment = dict(os.environ, FERRY_BIN=bin_folder, FERRY_ROOT=str(_ROOT),
                       FERRY_LONG="1" if long else "", TF_CPP_MIN_LOG_LEVEL="3",
                       CUDA_VISIBLE_DEVICES="", PYTHONDONTWRITEBYTECODE="1")
    counts = _run_python_tests("cli", sys.executable, environment, phases)
    with phases.measure("virtual environment"):
        try:
            python = _prepare_venv(".venv", "tests/tf/requirements.txt")
        except (OSError, subprocess.CalledProcessError) as error:
            counts.fail(f"virtual environment: {error}")
            return counts
    counts += _run_python_tests("tf", python, environment, phases)
    return counts


def main():
    args = _parse_arguments()
    phases = _Phases()
    phases.add("packages", time.time() - float(os.environ.get("FERRY_TEST_START", time.time())))
    total = test_summary.Counts()
    with phases.measure("CUDA toolkit"):
        try:
            _prepare_cuda()
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            total.fail(f"CUDA toolkit: {error}")
    if not args.sanitizers:
        with phases.measure("build and C++ tests"):
            total += _run_bazel_tests(args.long)
        total += _run_all_python_tests(args.long, phases)
    for name in args.sanitizers or (_SANITIZERS if args.long else ()):
        with phases.measure(name):
            total += _run_bazel_tests(args.long, config=name)
    phases.print()
    if total.failures:
        print("\nfailed:")
        for failure in total.failures:
            print(f"  {failure}")
    print(f"\n{total}")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
