#!/usr/bin/env bash
# The device side with the oldest or the newest release of each dependency that pyproject.toml allows.
# Called by: just test-oldest, just test-newest
set -euo pipefail
cd "$(dirname "$0")/.."
which="$1" interpreter="$2"
venv="$(mktemp -d)"
trap 'rm -rf "$venv"' EXIT
"$interpreter" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet uv
lowest=()
if [ "$which" = oldest ]; then lowest=(--resolution lowest-direct); fi
# --reinstall would build afresh each time; the wheels of a package index are enough.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "${lowest[@]}" ".[ort]"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" pytest hypothesis
"$venv/bin/uv" pip list --quiet --python "$venv/bin/python" |
    grep -iE "^(numpy|h5py|safetensors|typer|rich|onnxruntime) "
"$venv/bin/python" -c "import importlib.util as u; assert not u.find_spec('torch')"
"$venv/bin/pytest" --quiet
