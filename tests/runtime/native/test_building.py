"""It is built, installed and found as C and C++ programs find libraries."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.native import building, short

pytestmark = building.once_is_enough

PROGRAM = """
#include <cstdio>
#include <poyoedge.h>
int main() {
    poyoedge_options options = POYOEDGE_OPTIONS;
    poyoedge_decoder *decoder = nullptr;
    char why[256];
    int code = poyoedge_open(&options, &decoder, why, sizeof why);
    std::printf("%s %d %s", poyoedge_version(), code, why);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("libdir", ["lib", "lib/of/machine"])
def test_the_build_installs_what_pkg_config_finds(tmp_path: Path, libdir: str) -> None:
    """Below the folder that the installation names, whatever was configured."""
    for tool in ("cmake", "pkg-config"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    if building.CC is None or building.CXX is None:
        pytest.skip("no C++ compiler")
    prefix, build = tmp_path / "prefix", tmp_path / "build"
    building.run(["cmake", "-S", building.NATIVE, "-B", build, f"-DCMAKE_INSTALL_LIBDIR={libdir}"])
    building.run(["cmake", "--build", build])
    building.run(["cmake", "--install", build, "--prefix", prefix])
    found = {**os.environ, "PKG_CONFIG_PATH": str(prefix / libdir / "pkgconfig")}
    words = building.run(["pkg-config", "--cflags", "--libs", "poyoedge"], env=found).split()
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM)
    building.run([building.CXX, "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source,
                  *words, "-o", tmp_path / "program"])  # fmt: skip
    said = building.run(
        [tmp_path / "program"], env={**os.environ, "LD_LIBRARY_PATH": str(prefix / libdir)}
    )
    assert said == "0.1.0 2 session: expected a file of poyo-edge freeze, got NULL"


def the_header() -> Path | None:
    """ONNX Runtime's own header, where it is."""
    places = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime"]
    found = [Path(place) / "onnxruntime_c_api.h" for place in places if place]
    return next((path for path in found if path.is_file()), None)


def test_our_declarations_have_onnx_runtimes_places(tmp_path: Path) -> None:
    header = the_header()
    if building.CC is None or header is None:
        pytest.skip(
            "no C compiler, or no onnxruntime_c_api.h (ONNXRUNTIME_INCLUDE names its folder)"
        )
    building.run([building.CC, "-std=c11", f"-I{header.parent}", "-c",
                  building.STAND_INS / "layout.c", "-o", tmp_path / "layout.o"])  # fmt: skip


def test_what_runs_on_an_emulated_arm_holds_here(
    libpoyoedge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert short.main(libpoyoedge)
    assert "20 windows, C beside Python" in capsys.readouterr().out
