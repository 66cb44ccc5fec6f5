"""What the documentation tells people to type works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT

from poyo_edge.cli import app
from poyo_edge.export import freeze_session
from poyo_edge.runtime import Decoder
from poyo_edge.trials import Trials

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.fixture
def at_hand(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny artifact in the current folder, under the name that the pages use."""
    shutil.copytree(tiny, tmp_path / "model.poyo")
    monkeypatch.chdir(tmp_path)


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.mark.usefixtures("at_hand")
def test_runtime_python_runs_as_it_stands() -> None:
    blocks = blocks_of("docs/runtime.md")
    assert len(blocks) == 4
    names: dict[str, object] = {
        "Decoder": Decoder,
        "beat_ns": 0,
        "ticks": [1000, 1200],
        "rows": [0, 1],
        "last_tick": 1500,
    }
    for block in blocks:
        code = block.replace("day_2", "tiny_a").replace("today.session", "tiny_b.session")
        exec(code, names)
    assert names["result"].n_spikes == 2  # type: ignore[attr-defined]
    assert names["decoder"].session_id == "tiny_b"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_hand")
def test_calibration_python_runs_as_it_stands() -> None:
    block, intentions = blocks_of("docs/calibration.md")
    decoder = Decoder.open("model.poyo", session="tiny_a")
    times = np.arange(0.0, 20.0, 0.01)
    labels = np.stack([np.sin(times), np.cos(times)], axis=-1)[::5] * 10
    names: dict[str, object] = {
        "unit_ids": decoder.unit_ids,
        "decoder": decoder,
        "old_session": None,
        "spike_times": times,
        "spike_units": np.arange(len(times)) % 12,
        "label_times": times[::5],
        "labels": labels,
    }
    code = block.replace("max_seconds=120", "max_seconds=5").replace(
        "swap_into(decoder)", "swap_into(decoder, force=True)"
    )
    exec(code.replace('save("today.session")', 'save("today.session", force=True)'), names)
    assert decoder.session_id == "today"
    decoder.revert()
    assert decoder.session_id == "tiny_a"
    assert Path("today.session").is_file()
    starts = np.arange(0.0, 20.0, 2.0)
    names |= {
        "trials": Trials(
            start=starts,
            end=starts + 1.9,
            go_time=starts + 0.3,
            target=np.tile([[10.0, 0.0], [0.0, 0.0]], (5, 1)),
            success=np.ones(10, bool),
            radius=np.full(10, 1.0),
        ),
        "cursor_times": times,
        "cursor": np.stack([5 - 5 * np.cos(np.pi * times / 2), 0 * times], axis=-1),
    }
    exec(intentions, names)
    assert names["labels"].report.trials_used == 10  # type: ignore[attr-defined]
    assert names["calibrator"]._reports  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_hand")
def test_reliability_python_runs_as_it_stands() -> None:
    (block,) = blocks_of("docs/reliability.md")
    names: dict[str, object] = {}
    exec(block.replace("day_2", "tiny_a"), names)
    assert names["health"]["status"] == "unknown"  # type: ignore[index]


@pytest.mark.usefixtures("at_hand")
def test_feeds_python_runs_as_it_stands() -> None:
    rig, standing, falcon = blocks_of("docs/feeds.md")
    names: dict[str, object] = {"counts": np.ones((1, 12))}
    exec(rig.replace("today.session", "tiny_a").replace(":5000", ":0"), names)
    assert names["values"] == []
    exec(standing, names)
    assert names["velocity"]("no_such_memory") == [0.0, 0.0]  # type: ignore[operator]
    exec(falcon.replace("day_2", "tiny_a"), names)
    assert names["values"].shape == (1, 2)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_hand")
def test_readme_python_runs_as_it_stands() -> None:
    blocks = blocks_of("README.md")
    assert len(blocks) == 1
    units = Decoder.open("model.poyo", session="tiny_a").unit_ids
    code = blocks[0].replace("my_session/unit_000", units[0])
    code = code.replace("my_session/unit_001", units[1]).replace("my_session", "tiny_a")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["result"].n_spikes == 2  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_hand")
def test_embedding_python_decodes_a_frozen_session_as_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = blocks_of("docs/embedding.md")
    decoder = Decoder.open("model.poyo", session="tiny_a")
    freeze_session("model.poyo", "tiny_a", "sim_00.onnx")
    units = {"sim_00/unit_000": decoder.unit_ids[0], "sim_00/unit_007": decoder.unit_ids[7]}
    for name, own in units.items():
        assert name in block
        block = block.replace(name, own)
    exec(block, {})
    decoder.push([0.31, 0.87], decoder.rows(list(units.values())))
    printed = [float(word) for word in capsys.readouterr().out.strip(" []\n").split()]
    np.testing.assert_allclose(printed, decoder.decode(1.0).value, rtol=1e-4)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_and_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_commands_in_the_docs_exist() -> None:
    known = {
        command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    }
    assert {"demo", "replay", "doctor"} <= known
    for page in PAGES:
        text = page.read_text()
        for command in re.findall(r"(?:^|`)poyo-edge ([a-z][a-z-]*)", text, re.MULTILINE):
            assert command in known, f"{page.name}: poyo-edge {command}"


def test_the_page_of_stability_imports_what_it_calls_public() -> None:
    pytest.importorskip("torch", reason="checkpoints need it")
    pytest.importorskip("lightning", reason="training needs it")
    (block,) = blocks_of("docs/stability.md")
    exec(block, {})
