"""What all pictures share: colours, marks, a title, and where they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poyo_edge.errors import MissingExtraError

TRUE, DECODED = "#8a8f98", "#c2410c"
FAILED = "#2563eb"


def save(plt: Any, figure: Any, path: str | Path, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def marks() -> list[tuple[str, str]]:
    return [(DECODED, "o"), ("#7c3aed", "D"), ("#2563eb", "+"), ("#059669", "x"), (TRUE, "_"),
            ("#be185d", "1")]  # fmt: skip


def pyplot(purpose: str) -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", purpose) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
