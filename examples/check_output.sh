#!/bin/bash
# usage: check_output.sh PROGRAM EXPECTED: runs the program in an empty folder and compares what it
# prints.
set -euo pipefail
program=$PWD/$1 expected=$PWD/$2
cd "$(mktemp -d "${TEST_TMPDIR:-/tmp}/example.XXXXXX")"
"$program" > printed.txt
diff -u "$expected" printed.txt
