#!/bin/bash
# Ferry's main job, from nothing: sets up, builds, trains on the digits with background saves, is
# killed with SIGKILL in the middle, resumes by itself, reaches the end; then looks at what it left.
# usage: ./train.sh [MODEL_DIR]        (default: ./digits-model, emptied first if it is there)
set -euo pipefail
from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
model_dir=${1:-$PWD/digits-model}
[[ $model_dir == /* ]] || model_dir=$from/$model_dir
if [[ ${1:-} == -* || $# -gt 1 ]]; then
  sed -n 2,4p "$0" >&2
  exit 2
fi
say() { printf '\n== %s\n' "$*"; }

say "Set-up: packages that are missing, then the build (some minutes the first time)"
tools/setup.sh
bazel build //tools:ferry
ferry=$PWD/bazel-bin/tools/ferry

# Only a folder that an earlier run of this script made is emptied.
if [[ -e $model_dir ]]; then
  if [[ ! -e $model_dir/made-by-train.sh ]]; then
    echo "train.sh: $model_dir is there already and isn't this script's; name another" >&2
    exit 1
  fi
  rm -rf -- "$model_dir"
fi
mkdir -p -- "$model_dir"
touch -- "$model_dir/made-by-train.sh"

train=("$ferry" train --model_dir "$model_dir" --steps 6000 --save_checkpoints_steps 100)
say "Training, with a checkpoint every 100 steps saved in the background"
echo "${train[*]}"
"${train[@]}" &
pid=$!
# In the middle: when some checkpoints are there, and the end isn't.
for ((i = 0; i < 6000; ++i)); do
  step=$(sed -n 's/^model_checkpoint_path: ".*-\([0-9]*\)"$/\1/p' "$model_dir/checkpoint" \
    2>/dev/null || true)
  ((${step:-0} < 2000)) || break
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.01
done
kill -KILL "$pid" 2>/dev/null || true
if wait "$pid" 2>/dev/null; then
  echo "(it was done before it could be killed)"
else
  say "Killed with SIGKILL after the checkpoint of step ${step:-0}. The same command again:"
fi
"${train[@]}"

say "The checkpoints"
"$ferry" inspect "$model_dir"
for index in "$model_dir"/model.ckpt-*.index; do
  "$ferry" verify "${index%.index}"
done

say "The graph"
"$ferry" summary "$model_dir/graph.pbtxt" --svg "$model_dir/graph.svg"

say "Where everything lies"
cat <<EOF
checkpoints        $model_dir/model.ckpt-*   (TensorFlow's: tf.train.latest_checkpoint finds them)
curves             $model_dir/training.svg   (loss and accuracy; the lines show where it resumed)
graph's drawing    $model_dir/graph.svg
TensorBoard files  $model_dir/events.out.tfevents.*   (tensorboard --logdir $model_dir)
the command        $ferry --help
EOF
