# Recipes make their own virtual environment in .venv; nothing else has to be installed first.

python := env("PYTHON", "python3")
venv := justfile_directory() / ".venv"
bin := venv / "bin"

# Where the surroundings forbid it, each of the many commands that tests run would compile all modules anew.
export PYTHONDONTWRITEBYTECODE := ""

# List the recipes
default:
    @just --list

# Create the virtual environment with everything but a GPU (about 3 minutes the first time)
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    stamp="{{ venv }}/.installed"
    if [ ! -x "{{ bin }}/python" ]; then "{{ python }}" -m venv "{{ venv }}"; rm -f "$stamp"; fi
    if [ ! "$stamp" -nt pyproject.toml ] || [ ! "$stamp" -nt constraints.txt ]; then
        echo "installing into .venv; this takes a few minutes the first time" >&2
        "{{ bin }}/python" -m pip install --quiet --upgrade pip
        PYTHONWARNINGS=ignore "{{ bin }}/python" -m pip install --quiet -c constraints.txt -e ".[all,dev,rtx,openvino]"
        touch "$stamp"
    fi

# The whole road on simulated recordings: pretrain, export, decode as a stream
demo *arguments: setup
    @"{{ bin }}/poyo-edge" demo {{ arguments }}

# Lint, types and all tests, one process more than cores (many tests wait) up to four
test *arguments: lint
    OMP_NUM_THREADS=1 "{{ bin }}/pytest" --numprocesses $(( {{ num_cpus() }} + 1 )) \
        --maxprocesses 4 --dist loadfile {{ arguments }}

# Style and types only
lint: setup
    "{{ bin }}/ruff" check .
    "{{ bin }}/ruff" format --check .
    "{{ bin }}/mypy"

# The device side without torch, on another Python: just test-device python3.12 [poyo_edge.whl]
test-device interpreter="python3.12" package=".":
    #!/usr/bin/env bash
    set -euo pipefail
    venv="$(mktemp -d)"
    trap 'rm -rf "$venv"' EXIT
    "{{ interpreter }}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet "{{ package }}[ort]" pytest hypothesis
    "$venv/bin/python" -c "import importlib.util as u; assert not u.find_spec('torch')"
    OMP_NUM_THREADS=1 "$venv/bin/pytest" --quiet

# The documentation site, strictly, into build/site, notebooks executed: just docs [as-they-are]
docs notebooks="execute": setup
    #!/usr/bin/env bash
    set -euo pipefail
    stamp="{{ venv }}/.docs"
    if [ ! "$stamp" -nt pyproject.toml ]; then
        PYTHONWARNINGS=ignore "{{ bin }}/python" -m pip install --quiet -c constraints.txt -e ".[docs]"
        touch "$stamp"
    fi
    if [ "{{ notebooks }}" = execute ]; then "{{ bin }}/python" docs/site/notebooks.py; fi
    # Not --quiet, with which mkdocs counts no warnings.
    NO_MKDOCS_2_WARNING=1 "{{ bin }}/python" -m mkdocs build --strict 2>&1 | { grep -v ^INFO || true; }
    echo build/site/index.html

# Build sdist and wheel twice from what is committed, compare their bytes, and check them
dist out="dist":
    #!/usr/bin/env bash
    set -euo pipefail
    tool="$(mktemp -d)"
    trap 'rm -rf "$tool"' EXIT
    "{{ python }}" -m venv "$tool"
    "$tool/bin/python" -m pip install --quiet build twine
    "$tool/bin/python" tests/dist.py "{{ out }}"

# Install sdist and wheel of dist/, each into a clean environment, and test the device side there
test-wheel interpreter="python3.12":
    "{{ just_executable() }}" test-device "{{ interpreter }}" "$(ls "$PWD"/dist/*.whl)"
    "{{ just_executable() }}" test-device "{{ interpreter }}" "$(ls "$PWD"/dist/*.tar.gz)"

# The device side with the oldest release that each bound of pyproject.toml allows
test-oldest interpreter="python3.10":
    bash tests/bounds.sh oldest "{{ interpreter }}"

# The device side with the newest releases that there are, pre-releases aside
test-newest interpreter="python3.13":
    bash tests/bounds.sh newest "{{ interpreter }}"

# Training and reading with another torch_brain: just test-torch-brain [what pip installs, or a folder]
test-torch-brain which="git+https://github.com/neuro-galaxy/torch_brain@main": setup
    #!/usr/bin/env bash
    set -euo pipefail
    other="$(mktemp -d)"
    trap 'rm -rf "$other"' EXIT
    "{{ bin }}/python" -m pip install --quiet --no-deps --target "$other" "{{ which }}"
    PYTHONPATH="$other" OMP_NUM_THREADS=1 "{{ bin }}/pytest" tests/training tests/recording \
        tests/test_model.py tests/converting/test_convert.py

# The C library: build/native/libpoyoedge.so, the operators of our own, and their tests
native *arguments: setup
    #!/usr/bin/env bash
    set -euo pipefail
    cmake="$(command -v cmake || true)"
    if [ -z "$cmake" ]; then
        "{{ bin }}/python" -m pip install --quiet cmake
        cmake="{{ bin }}/cmake"
    fi
    "$cmake" -S runtime/native -B build/native > /dev/null
    "$cmake" --build build/native
    "{{ bin }}/python" -W ignore::RuntimeWarning:runpy -m poyo_edge.runtime.backends.kernel_library
    OMP_NUM_THREADS=1 "{{ bin }}/pytest" tests/runtime/native {{ arguments }}

# The C library beside Python's decoder on 2 x 10⁵ windows of random streams (about 5 minutes)
native-same: setup
    POYOEDGE_SAME_WINDOWS=100000 OMP_NUM_THREADS=1 "{{ bin }}/pytest" -rP \
        tests/runtime/native/test_same_as_python.py -k "long_stream or onnx_runtime"

# A wheel with the operators of our own in it, in dist/: just wheel [x86_64|aarch64]
wheel machine=arch(): setup
    #!/usr/bin/env bash
    set -euo pipefail
    compiler=c++
    if [ "{{ machine }}" != "$(uname -m)" ]; then compiler="{{ machine }}-linux-gnu-g++"; fi
    kernels=runtime/native/kernels
    trap 'rm -f "$kernels"/poyo_edge_kernels.so*' EXIT
    "{{ bin }}/python" -W ignore::RuntimeWarning:runpy -m poyo_edge.runtime.backends.kernel_library \
        "$kernels" "$compiler" "{{ machine }}"
    "{{ bin }}/python" -m pip wheel --quiet --no-deps --wheel-dir dist \
        "--config-settings=--build-option=--plat-name=manylinux_2_17_{{ machine }}" .
    ls dist

# The C library under sanitizers for a minute, and with 10⁶ windows (about 10 minutes)
native-faults: setup
    POYOEDGE_THREADS_S=60 POYOEDGE_SOAK_WINDOWS=1000000 "{{ bin }}/pytest" -rP \
        tests/runtime/native/test_faults.py tests/runtime/native/test_kernels.py

# The device side and the C library on an emulated aarch64: just test-arm [short|full] [1.19.2]
test-arm how="full" onnxruntime="":
    bash tests/arm.sh "{{ how }}" "{{ onnxruntime }}"

# What the device side is made of, as CycloneDX JSON: just sbom [poyo-edge.cdx.json] [ort,sign]
sbom out="poyo-edge.cdx.json" extras="ort":
    #!/usr/bin/env bash
    set -euo pipefail
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    "{{ python }}" -m venv "$scratch/device"
    "$scratch/device/bin/python" -m pip install --quiet ".[{{ extras }}]"
    "$scratch/device/bin/python" -m pip uninstall --quiet --yes pip setuptools
    "{{ python }}" -m venv "$scratch/tool"
    "$scratch/tool/bin/python" -m pip install --quiet "cyclonedx-bom==7.5.0"
    "$scratch/tool/bin/cyclonedx-py" environment --pyproject pyproject.toml \
        --output-reproducible --output-file "{{ out }}" "$scratch/device/bin/python"
    echo "{{ out }}"

# Remove what the recipes made
clean:
    rm -rf "{{ venv }}" demo build dist *.egg-info
