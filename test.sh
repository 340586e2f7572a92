#!/bin/bash
# Runs all tests, and does all set-up for them. Options: ./test.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export FERRY_TEST_START=$EPOCHSECONDS
# Being told of the options needs no set-up.
[[ " $* " == *" -h "* || " $* " == *" --help "* ]] || tools/setup.sh --tests
exec python3 tools/run_tests.py "$@"
