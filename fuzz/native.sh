#!/usr/bin/env bash
# Fuzz the C library under the sanitizers: bash fuzz/native.sh SESSION.onnx [MINUTES]. Needs clang.
set -euo pipefail
cd "$(dirname "$0")/.."
session="$(realpath "$1")"
minutes="${2:-3}"
clang="${CLANG:-$(command -v clang || command -v clang-14)}"
out=build/fuzz
mkdir -p "$out" fuzz/corpus/native fuzz/crashes/native
flags=(-std=c11 -D_POSIX_C_SOURCE=200809L -g -O2 -fno-sanitize-recover=all)
mapfile -t sources < <(find runtime/native/src -name '*.c')
"$clang" "${flags[@]}" -DSTAND_IN_GOOD -shared -fPIC tests/runtime/native/c/stand_in.c \
    -o "$out/libonnxruntime.so"
"$clang" "${flags[@]}" -fsanitize=fuzzer,address,undefined "${sources[@]}" fuzz/native.c \
    -o "$out/native" -ldl -lpthread -lm
for kind in 0 1; do
    { printf "\\x0$kind"; cat "$session"; } > "fuzz/corpus/native/seed-$kind"
done
printf '\x08\x03\x10\x00\x01\x10\x10\x02\x10\x20\x03\x10\x40' > fuzz/corpus/native/seed-2
FUZZ_SESSION="$session" FUZZ_LIBRARY="$PWD/$out/libonnxruntime.so" "$out/native" \
    fuzz/corpus/native -artifact_prefix=fuzz/crashes/native/ -max_total_time=$((60 * minutes)) \
    -timeout=20 -rss_limit_mb=4096 -max_len=200000 -print_final_stats=1
