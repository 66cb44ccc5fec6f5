"""Each report: one file, nothing fetched, every word explained, nothing of a file believed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.commands import run_python
from helpers.reports.page import Page
from helpers.reports.values import (
    UNIT,
    calibration_values,
    closed_loop_values,
    evaluation_values,
    export_values,
    paths,
)

from poyo_edge.reports.calibration import calibration_page
from poyo_edge.reports.closed_loop import closed_loop_page
from poyo_edge.reports.evaluation import evaluation_page
from poyo_edge.reports.exported import export_page
from poyo_edge.reports.page import Section, page, small
from poyo_edge.reports.words import WORDS, explained

PAGES: dict[str, Callable[[], str]] = {
    "calibrate": lambda: calibration_page(calibration_values()),
    "closed-loop": lambda: closed_loop_page(closed_loop_values(), paths()),
    "evaluate": lambda: evaluation_page(evaluation_values()),
    "export": lambda: export_page(export_values(), [], "torch_brain 0.1.0"),
}


def ended(section: str) -> str:
    """A section that was cut short, whole."""
    return section if section.endswith("</section>") else f"{section}</section>"


FETCHING = {"script", "link", "iframe", "object", "embed", "img", "video", "audio", "source"}


@pytest.mark.parametrize("name", PAGES)
def test_a_report_is_one_file_that_fetches_and_runs_nothing(name: str) -> None:
    text = PAGES[name]()
    found = Page(text)
    assert not FETCHING & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key != "href" or (value or "").startswith("#")
    assert "url(" not in text.replace("url(#", "")
    policy = next(one for one in found.of("meta") if "http-equiv" in one)
    assert (policy["content"] or "").startswith("default-src 'none'")


@pytest.mark.parametrize("name", PAGES)
def test_it_is_for_a_phone_for_print_and_for_the_dark(name: str) -> None:
    text = PAGES[name]()
    assert 'name="viewport"' in text
    for query in ("@media print", "prefers-color-scheme: dark", "max-width: 640px"):
        assert query in text
    for cell in re.findall(r'<table class="rows">.*?</table>', text):
        assert "data-head" in cell, "cells say on a phone what they are"


@pytest.mark.parametrize("name", PAGES)
def test_it_is_grouped_by_questions_whose_words_are_explained_there(name: str) -> None:
    text = PAGES[name]()
    questions = re.findall(r"<h2>(.*?)</h2>", text)
    assert len(questions) >= 3
    assert all(question.endswith("?") for question in questions)
    sections = re.findall(r"<section.*?</section>", text)
    for section in sections:
        read = section.partition('<dl class="words">')[0]
        for word in ("R²", "angular error", "gain", "bits per second", "dead", "omega"):
            if re.search(rf"(?<!\w){word}(?!\w)", Page(ended(read)).text):
                assert f"<dt>{word}</dt>" in section, f"{word} is not explained in {read}"
        assert "held-out" not in read or "<dt>held out</dt>" in section
    for word in re.findall(r"<dt>(.*?)</dt>", text):
        assert word in WORDS


@pytest.mark.parametrize("name", PAGES)
def test_axes_and_marks_lie_inside_of_their_pictures(name: str) -> None:
    for svg in re.findall(r'<svg viewBox="0 0 400 [^>]*>.*?</svg>', PAGES[name]()):
        height = float(svg.split('"')[1].split()[3])
        places = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)"', svg)
        assert len(places) > 4
        assert all(0 <= float(x) <= 400 and 0 <= float(y) <= height for x, y in places)
        assert "nan" not in svg
        assert "inf" not in svg
        ticks = [float(x) for x, y in places if float(y) == height - 23]
        assert (np.diff(sorted(ticks)) > 20).all(), "numbers at the axis do not collide"


def test_what_a_file_says_is_text_and_nothing_else() -> None:
    for text in (PAGES["calibrate"](), PAGES["export"]()):
        assert UNIT not in text
        assert UNIT in Page(text).text


def test_a_calibration_says_what_was_refused_and_what_is_missing() -> None:
    values = calibration_values(
        session=None, wiener=None, control=None, compared=None, r2_in_use=None, alike=[],
        silent_units=[], r2_heldout=-0.3, r2_per_dim=[-0.4, -0.2], units=[],
        r2_interval=[[-0.6, -0.1], [-0.5, 0.1]], r2_by_seconds=[],
    )  # fmt: skip
    text = Page(calibration_page(values)).text
    assert "refused" in text
    assert "too bad to be saved" in text
    assert "none was written" in text
    assert "control with" not in text
    whole = Page(calibration_page(calibration_values())).text
    for word in ("day/unit_090", "0.93", "far from trained units", "use the session", "a note"):
        assert word in whole


def test_a_closed_loop_without_targets_reached_or_latencies_still_has_its_page() -> None:
    one = {**closed_loop_values()["conditions"][0], "bits_per_s": None, "time_s": None}
    values = closed_loop_values(conditions=[one], against=[], recalibrated=[])
    text = Page(closed_loop_page(values, {"poyo": []})).text
    assert "–" in text
    assert "Which way" not in text
    assert "simulated" in text.lower()


def test_an_evaluation_of_one_session_and_far_below_zero() -> None:
    values = evaluation_values(1, left_out=[])
    values["sessions"][0]["r2"]["causal"]["gru"] = -30.0
    text = Page(evaluation_page(values)).text
    assert "-30.000" in text
    assert "is drawn there" in text
    assert "mean of" not in text


def test_an_export_says_what_failed() -> None:
    values = export_values(replay=None, sessions={})
    values["parity"][1]["ok"] = False
    values["health"] |= {"dead": ["enc.weight"]}
    text = Page(export_page(values, [])).text
    for word in ("failed", "No: 1 of 20 matrices", "enc.weight", "no unit names its session"):
        assert word in text
    assert "How well does it decode?" not in text


def test_every_word_is_used_and_an_unknown_one_is_noticed() -> None:
    text = " ".join(make() for make in PAGES.values())
    with_all = export_values()
    with_all["replay"]["statuses"] = dict.fromkeys(
        ("VALID", "WARMUP", "DEGRADED", "HELD", "INVALID"), 1
    )
    baselines = {"poyo": 0.1, "mlp": 0.1, "gru": 0.1}
    judged = evaluation_values(1)
    judged["sessions"][0]["r2"] = {"causal": baselines}
    smoothed = closed_loop_values()
    smoothed["conditions"][1]["smoothing_ms"] = 50.0
    text += export_page(with_all, []) + evaluation_page(judged) + closed_loop_page(smoothed, {})
    assert set(WORDS) - set(re.findall(r"<dt>(.*?)</dt>", text)) == set()
    with pytest.raises(KeyError):
        explained("nobody said")
    with pytest.raises(KeyError):
        page("t", "l", [Section(question="q?", words=("nobody said",))])


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.25, "0.25"), (1.5e-6, "1.5\u00a0×\u00a010⁻⁶")]
)
def test_small_numbers_are_written_as_people_do(value: float, said: str) -> None:
    assert small(value) == said


WITHOUT = """
import json, sys
class No:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("matplotlib", "numpy", "torch"):
            raise ImportError(name)
sys.meta_path.insert(0, No())
import importlib.util
spec = importlib.util.find_spec
from poyo_edge.reports.calibration import calibration_page
print(len(calibration_page(json.loads(sys.argv[1]))))
"""


def test_a_report_needs_the_standard_library_alone() -> None:
    done = run_python(WITHOUT, json.dumps(calibration_values()))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


def test_the_same_values_give_the_same_page() -> None:
    values: Any = calibration_values()
    code = "import json,sys; from poyo_edge.reports.calibration import calibration_page as p; "
    code += "import hashlib; print(hashlib.sha256(p(json.loads(sys.argv[1])).encode()).hexdigest())"
    found = {run_python(code, json.dumps(values)).stdout for _ in range(2)}
    assert len(found) == 1
    assert len(found.pop()) == 65
