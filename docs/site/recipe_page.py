"""The page of a recipe's keys, from the classes that hold them.

python docs/site/recipe_page.py        writes docs/reference/recipe.md
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "recipe.md"
_HEAD = """# Keys of a recipe

A recipe is a TOML file, or one of the names that `poyo-edge train --help` lists. `--set KEY=VALUE`
replaces a key for one run: `--set steps=500`, `--set model.depth=4`,
`--set data.recordings.behavior=hand.vel`. A key that does not exist is an error that names the
likely one. Made by `python docs/site/recipe_page.py`."""
_PARTS = (
    ("Run and optimiser", "poyo_edge/training/recipe.py", "Recipe", ""),
    ("`[model]`: sizes", "poyo_edge/spec.py", "ModelSpec", "model."),
    ("`[data.NAME]`: recordings that are read alike", "poyo_edge/training/recipe.py", "Source",
     "data.NAME."),
)  # fmt: skip
_TABLES = ("spec", "data")
"""Fields that are tables of a file."""
_SIZES = {
    "dim": "Width of tokens and embeddings.",
    "depth": "Processing layers.",
    "dim_head": "Width of an attention head.",
    "cross_heads": "Heads of the encoder and the decoder.",
    "self_heads": "Heads of the processing layers.",
    "latents_per_step": "Latent tokens of each step.",
    "dim_out": "Outputs, as the behaviour has dimensions.",
    "ffn_mult": "Width of the feed-forward parts, in widths of tokens; torch_brain has 4.",
    "rotating_pairs": "Pairs of a head that rotate with time; a quarter of ``dim_head``.",
    "window_s": "Seconds that are decoded from.",
    "latent_step_s": "Seconds between steps of latent tokens.",
}


def page() -> str:
    """Its text."""
    parts = [_HEAD]
    for title, file, name, prefix in _PARTS:
        rows = [
            f"| `{prefix}{key}` | {default} | {meaning} |"
            for key, default, meaning in _fields(ROOT / file, name)
        ]
        parts.append(
            f"## {title}\n\n| key | default | what it is |\n|---|---|---|\n" + "\n".join(rows)
        )
    return "\n\n".join(parts) + "\n"


def _fields(file: Path, name: str) -> list[tuple[str, str, str]]:
    """Key, default and meaning of each field of a class."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name).body
    found = []
    for i, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key = node.target.id
        if name == "Recipe" and key in _TABLES:
            continue
        after = body[i + 1] if i + 1 < len(body) else None
        told = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told = " ".join(str(after.value.value).split())
        meaning = told or (_SIZES[key] if name == "ModelSpec" else "")
        found.append((key, _default(node), meaning.replace("``", "`").replace("|", "\\|")))
    return found


def _default(node: ast.AnnAssign) -> str:
    if node.value is None:
        return "–"
    text = ast.unparse(node.value)
    if text.startswith("field("):
        return "none"
    return {"''": "none", "()": "none", "None": "none"}.get(text, f"`{text}`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
