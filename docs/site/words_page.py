"""The page of words: those that reports explain, and those of the documentation.

python docs/site/words_page.py        writes docs/reference/words.md
"""

from __future__ import annotations

from pathlib import Path

from poyo_edge.reports.words import WORDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "words.md"
_HEAD = """# Words

What the documentation and the reports mean by them. Made by `python docs/site/words_page.py`."""
_HERE = {
    "artifact": "The folder `NAME.poyo` that `export` makes of a checkpoint: everything that a "
    "device needs to decode.",
    "assist": "A share of the way to the target that is added to what is decoded, so that first "
    "control succeeds.",
    "checkpoint": "What training leaves: weights, and the units and sessions that they belong to. "
    "It needs torch.",
    "core": "The model without its tables of units and sessions, folded into one graph that all "
    "sessions share.",
    "engine": "The core, compiled for one kind of GPU.",
    "fold (of labels)": "One of the parts into which labelled time is cut, to judge on what was "
    "not learned from.",
    "folding": "Computing once, when a session is opened, what torch_brain computes in every "
    "window.",
    "frozen": "One session and its core in one ONNX file.",
    "gate": "What a fitted session has to pass before it may decode: held-out R² and what control "
    "would become.",
    "golden windows": "Windows and expected outputs in an artifact, by which `verify` settles "
    "whether it decodes as where it was exported.",
    "held gain": "Decoded speed over meant speed, a second after a command that stays the same.",
    "jango": "One monkey of a set of recordings that figures name; no recording is part of the "
    "project.",
    "journal": "What a run heard and decoded, frame by frame, in a file that a crash cannot take.",
    "prior": "Mean and spread of the embeddings of trained units: where a unit begins that nobody "
    "knows.",
    "pull": "How strongly a fit is held near where it began.",
    "rig": "The machine that the array and the task are connected to, and on which `run` decodes.",
    "session (file)": "`ID.session`: the embeddings of one day's units, for one core.",
    "trunk": "All weights of a model that sessions share.",
}  # fmt: skip


def page() -> str:
    """Its text."""
    found = sorted({**WORDS, **_HERE}.items(), key=lambda one: one[0].lower())
    rows = "\n".join(f"| {word} | {meaning} |" for word, meaning in found)
    return f"{_HEAD}\n\n| word | what it is |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
