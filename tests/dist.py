"""Build the sdist and the wheel twice from what is committed, hold the bytes equal, and check them.

Run: python tests/dist.py dist

Needs the packages ``build`` and ``twine``. Times in both files are those of the last commit.
setuptools writes the time of the build into an sdist, so the sdist is packed once more.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(out: Path, epoch: str) -> dict[str, str]:
    """Build into a folder; name → SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="fully_trusted")  # our own commit, with its links
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(out), str(tree)],
            check=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
            stdout=subprocess.DEVNULL,
        )
    for sdist in out.glob("*.tar.gz"):
        sdist.write_bytes(normal(sdist.read_bytes(), int(epoch)))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def normal(sdist: bytes, epoch: int) -> bytes:
    """The same files in the order of their names, all of one time and of nobody."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as old,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def main(out: Path) -> int:
    """Build, compare and check; the exit code."""
    epoch = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    out.mkdir(parents=True, exist_ok=True)
    if there := sorted(path.name for path in out.iterdir()):
        print(f"{out}: expected an empty folder, got {', '.join(there)}", file=sys.stderr)
        return 2
    found = build(out, epoch)
    with tempfile.TemporaryDirectory() as again:
        other = build(Path(again), epoch)
    for name, value in found.items():
        same = other.get(name) == value
        print(f"{value}  {name}  {'the same twice' if same else 'NOT the same twice'}")
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(out.iterdir()))]
    )
    return 3 if found != other or checked.returncode else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
