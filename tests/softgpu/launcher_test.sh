#!/bin/bash
# Tests tools/softgpu, and what ends a program on the software GPU.
#   launcher_test.sh LAUNCHER PROGRAM
set -uo pipefail

launcher=$1
program=$2
failures=0

# expect STATUS TEXT COMMAND…: the command's exit status, and what its output contains.
expect() {
  local status=$1 text=$2 output actual
  shift 2
  output=$("$@" 2>&1)
  actual=$?
  if [[ $actual != "$status" || $output != *"$text"* ]]; then
    echo "FAILED: $*" >&2
    echo "  expected status $status and \"$text\"; found status $actual and:" >&2
    echo "$output" >&2
    failures=$((failures + 1))
  fi
}

expect 2 "tools/softgpu [--order=" "$launcher"
expect 2 "options are --SETTING=VALUE" "$launcher" --order lazy "$program" work
if "$launcher" "$program" work 2>&1 | grep -q "GPUs of its own"; then
  echo "a real GPU answers: nothing more to test"
  exit $((failures > 0))
fi

expect 0 "no GPU answers; this runs on the software GPU" "$launcher" "$program" work
expect 0 "3 devices" "$launcher" --devices=3 "$program" devices
expect 97 "100 bytes on device 0" "$launcher" --checks=leak "$program" leak
expect 0 "" "$launcher" --checks=all "$program" work
expect 97 "FERRY_SOFTGPU_ORDER can't be \"random\"" "$launcher" --order=random "$program" work
expect 97 "there is no setting FERRY_SOFTGPU_ODER" "$launcher" --oder=lazy "$program" work
expect 1 "" "$launcher" --memory=99 "$program" work
expect 2 "" "$launcher" --fault=lost:1 "$program" work
# Host code that touches device memory dies of SIGSEGV, with a word on what that memory is. (The
# sanitizers would end the program in their own way.)
expect 139 "allocation 1 (100 bytes" env ASAN_OPTIONS=handle_segv=0 \
  TSAN_OPTIONS=handle_segv=0:report_signal_unsafe=0 \
  "$launcher" "$program" touch

timeline=$TEST_TMPDIR/timeline
expect 0 "" "$launcher" --timeline="$timeline" "$program" work
expect 0 '"engine": "compute", "kind": "fill", "bytes": 100' cat "$timeline"

((failures == 0)) && echo "all passed"
exit $((failures > 0))
