#!/usr/bin/env bash
# The device side on an emulated aarch64: bash tests/arm.sh [fetch|short|full] [ONNXRUNTIME_VERSION]
#                                    or: bash tests/arm.sh replay VERSION ARTIFACT RECORDING ...
#
# It takes qemu, an arm64 Python and ONNX Runtime from Debian's and PyPI's packages into build/arm,
# and keeps them there; fetch does nothing else. It shows results, never speed. What short does not
# run, full does: the device tests. replay hands what follows to `poyo-edge replay`.
set -euo pipefail
cd "$(dirname "$0")/.."
how="${1:-short}"
ort="${2:-}"
arm="$PWD/build/arm"
root="$arm/root"
site="$arm/site${ort:+-$ort}"
mkdir -p "$arm/apt/lists/partial" "$arm/apt/cache/archives/partial" "$arm/debs"

apt_arm() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o Dir::State::lists="$arm/apt/lists" -o Dir::Cache="$arm/apt/cache" \
        -o APT::Sandbox::User=root "$@"
}

if [ ! -e "$root/.complete" ]; then
    echo "getting an arm64 Python into build/arm" >&2
    rm -rf "$root"
    mkdir -p "$root/proc"
    apt_arm update
    (cd "$arm/debs" && apt_arm download python3.11-minimal libpython3.11-minimal \
        libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libssl3 libffi8 \
        libbz2-1.0 liblzma5 libsqlite3-0 libexpat1 libuuid1 libcrypt1 libreadline8 libtinfo6)
    for package in "$arm"/debs/*.deb; do dpkg-deb -x "$package" "$root"; done
    # A Cortex-A78AE, as in a Jetson Orin: without it onnxruntime's look at the processor fails.
    for core in 0 1; do
        printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n' "$core"
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n'
    done > "$root/proc/cpuinfo"
    touch "$root/.complete"
fi

qemu="$(command -v qemu-aarch64-static || echo "$arm/tools/usr/bin/qemu-aarch64-static")"
if [ ! -x "$qemu" ]; then
    (cd "$arm" && apt-get -qq -o APT::Sandbox::User=root download qemu-user-static)
    dpkg-deb -x "$arm"/qemu-user-static_*.deb "$arm/tools"
fi

host="$arm/host/bin/python"
if [ ! -x "$host" ]; then
    python3 -m venv "$arm/host"
    "$host" -m pip install --quiet --upgrade pip ziglang
fi
if [ ! -e "$site/.complete" ]; then
    "$host" -m pip install --quiet --target "$site" --upgrade --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
        "onnxruntime${ort:+==$ort}" ${ort:+"numpy<2.3"} numpy h5py safetensors typer rich \
        pytest hypothesis
    touch "$site/.complete"
fi

cat > "$arm/python" <<END
#!/bin/sh
PYTHONHOME="$root/usr" PYTHONPATH="$site:$PWD\${PYTHONPATH:+:\$PYTHONPATH}" exec "$qemu" -L "$root" -0 "$arm/python" \
    "$root/usr/bin/python3.11" "\$@"
END
cat > "$arm/cc" <<END
#!/bin/sh
PYTHONHOME= PYTHONPATH= exec "$host" -m ziglang cc -target aarch64-linux-gnu.2.28 "\$@"
END
chmod +x "$arm/python" "$arm/cc"

[ "$how" != fetch ] || exit 0

export CC="$arm/cc" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
python="$arm/python"
pytest=("$python" -m pytest -q -p no:cacheprovider)

"$python" -c 'import platform, onnxruntime, numpy, sys
print(platform.machine(), "Python", sys.version.split()[0], "onnxruntime", onnxruntime.__version__, "numpy", numpy.__version__)'
if [ "$how" = replay ]; then
    exec "$python" -m poyo_edge replay "${@:3}"
fi
mapfile -t sources < <(find runtime/native/src -name '*.c')
"$CC" -std=c11 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -fPIC -O2 -fvisibility=hidden -shared \
    "${sources[@]}" -o "$arm/libpoyoedge.so" -ldl -lpthread -lm
"$python" tests/helpers/native/short.py "$arm/libpoyoedge.so"
[ "$how" = full ] || exit 0

failed=0
"${pytest[@]}" tests/runtime/native/test_inside.py tests/runtime/native/test_same_as_python.py \
    -k "not any_stream and not (long_stream and not clock2)" || failed=1
"${pytest[@]}" tests/runtime/test_*.py tests/runtime/checks tests/artifact tests/files \
    tests/export/test_freeze.py || failed=1
exit "$failed"
