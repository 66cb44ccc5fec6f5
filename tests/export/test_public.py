"""What people import from ``poyo_edge.export`` and ``poyo_edge.evaluation``."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import run_python


def test_export_and_build_are_the_functions_that_the_command_line_calls() -> None:
    pytest.importorskip("torch", reason="exporting needs it")
    from poyo_edge.export import build_engines, export_checkpoint
    from poyo_edge.export.engines import build
    from poyo_edge.export.pipeline import export_checkpoint as inner

    assert export_checkpoint is inner
    assert build_engines is build.build_engines


def test_evaluate_is_a_function_and_its_module_can_still_be_loaded() -> None:
    pytest.importorskip("torch_brain", reason="evaluation needs it")
    import poyo_edge.evaluation
    from poyo_edge.evaluation import evaluate
    from poyo_edge.evaluation.evaluate import evaluate as inner

    assert evaluate is inner is poyo_edge.evaluation.evaluate


def test_without_torch_the_message_is_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        "from poyo_edge.export import *\n"
        "try:\n    from poyo_edge.export import export_checkpoint\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "export_checkpoint needs the package 'torch'" in done.stdout
    assert "pip install torch" in done.stdout


def test_a_name_that_is_not_there_is_an_error_as_everywhere() -> None:
    import poyo_edge.export

    with pytest.raises(AttributeError, match="no attribute 'export_everything'"):
        getattr(poyo_edge.export, "export_everything")  # noqa: B009
