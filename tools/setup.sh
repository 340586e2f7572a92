#!/bin/bash
# Installs the packages of Debian 12 or Ubuntu 24.04 that the build needs and the system lacks; as
# root, or with sudo. With --tests, those for the tests beside TensorFlow too.
set -euo pipefail

packages=(bazel-bootstrap g++ python3
  libabsl-dev libcli11-dev libeigen3-dev libfmt-dev libgmock-dev libgtest-dev
  libisal-dev libleveldb-dev libopenblas-dev libprotobuf-dev libre2-dev liburing-dev nlohmann-json3-dev
  protobuf-compiler zlib1g-dev graphviz)
[[ $(uname -m) == x86_64 ]] && packages+=(libdnnl-dev)
[[ ${1:-} == --tests ]] && packages+=(python3-venv libzstd-dev liblz4-dev)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this works on Debian 12 and Ubuntu 24.04; elsewhere install what corresponds to:" \
    "${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ $status == "install ok installed" ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

sudo=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup: these packages are missing, and this is neither root nor is there sudo." \
      "As root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
