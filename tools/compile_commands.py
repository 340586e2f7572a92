#!/usr/bin/env python3
"""Writes compile_commands.json, which editors and clang-tidy read, from Bazel's own actions.

Arguments are passed to bazel, such as --config=asan. clang-tidy needs --config-file=.clang-tidy:

  tools/compile_commands.py && clang-tidy --config-file=.clang-tidy -p . runtime/base/status.cc
"""

import json
import pathlib
import subprocess
import sys


def _bazel(*arguments):
    result = subprocess.run(["bazel", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout


def main():
    flags = sys.argv[1:]
    root = pathlib.Path(_bazel("info", "workspace").strip())
    execution_root = _bazel("info", "execution_root").strip()
    actions = json.loads(_bazel("aquery", 'mnemonic("CppCompile|CudaCompile", //...)',
                                "--output=jsonproto", *flags))
    commands = {}
    for action in actions.get("actions", []):
        arguments = action["arguments"]
        if "-c" not in arguments:
            continue
        source = arguments[arguments.index("-c") + 1]
        # What gcc alone knows.
        arguments = [a for a in arguments if a != "-fno-canonical-system-headers"]
        arguments.append("-Wno-unknown-warning-option")
        commands[source] = {
            "directory": execution_root,
            "file": source if source.startswith("bazel-out/") else str(root / source),
            "arguments": arguments,
        }
    (root / "compile_commands.json").write_text(json.dumps(list(commands.values()), indent=1))
    print(f"{len(commands)} commands")


if __name__ == "__main__":
    main()
