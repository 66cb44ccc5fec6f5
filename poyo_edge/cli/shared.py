"""What all commands share: the application, its options, and how errors end a command."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from poyo_edge.cli.console import bar_closed_behind, complain
from poyo_edge.cli.help import LAST, ScreenCommand, ScreenGroup
from poyo_edge.errors import MissingExtraError, PoyoEdgeError, UsageError, imported
from poyo_edge.runtime.backends import BACKENDS

if TYPE_CHECKING:
    from poyo_edge.runtime.rig.realtime import RealtimeSettings

app = typer.Typer(
    name="poyo-edge",
    cls=ScreenGroup,
    help="From a POYO checkpoint to a decoder that runs beside the implant.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
REFUSED: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for words it cannot use: the usage error of the click that it comes with."""
START, DATA, TRAIN, DEPLOY = "Start here", "Recordings", "Train", "Export"
DEVICE, RIG, LOOK = "On the device", "At the rig", "Look"
"""Groups of commands, in the order of work; ``COMMANDS`` of ``root.py`` has the same order."""
DECODING, REAL_TIME = "Decoding", "Real time"
"""Groups of options that several commands have."""
_MADE: list[Path] = []
"""Folders that ``require_report`` has made, the innermost first."""


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell offers behind an option: those of the names that begin as what was typed."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=LAST, help="Print one JSON object only."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=LAST, help="Print no progress.")
]
ArtifactPath = Annotated[Path, typer.Argument(help="The artifact, a folder NAME.poyo.")]
Threads = Annotated[
    int, typer.Option(min=1, max=256, rich_help_panel=DECODING, help="Threads for one window.")
]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        rich_help_panel=DECODING,
        autocompletion=among(("auto", *BACKENDS)),
        help=f"auto, or one of {', '.join(BACKENDS)}; see doctor.",
    ),
]
SessionName = Annotated[
    str | None,
    typer.Option("--session", help="A .session file, or the id of a session in the artifact."),
]
Cpus = Annotated[
    list[int] | None,
    typer.Option("--cpu", min=0, rich_help_panel=REAL_TIME, help="Core; may be repeated."),
]
Priority = Annotated[
    int | None,
    typer.Option(min=1, max=99, rich_help_panel=REAL_TIME, help="SCHED_FIFO priority."),
]
LockMemory = Annotated[
    bool, typer.Option("--lock-memory", rich_help_panel=REAL_TIME, help="Ask for mlockall.")
]
GcOff = Annotated[
    bool, typer.Option("--gc-off", rich_help_panel=REAL_TIME, help="No garbage collection.")
]
DecodedBehavior = Annotated[str, typer.Option("--behavior", help="What is decoded, as GROUP.KEY.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder of recordings (*.h5), or one.")]
_RECIPES = sorted(
    path.stem for path in (Path(__file__).resolve().parents[1] / "training/recipes").glob("*.toml")
)
RecipeName = Annotated[
    str,
    typer.Argument(
        help=f"{', '.join(_RECIPES)}, or a TOML file.",
        autocompletion=among(_RECIPES),
    ),
]
RecipeValues = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value of the recipe, KEY=VALUE; may be repeated."),
]


def recording_with(what: str) -> Any:
    """The recording that a command reads: what it is read for."""
    return typer.Argument(help=f"{what}, an HDF5 file.")


def behavior_to(do: str, *, whose: str = "artifact") -> Any:
    """``--behavior`` where a model says what it decodes unless another is named."""
    return typer.Option(help=f"Behaviour to {do}, as GROUP.KEY; default the {whose}'s.")


def labels_to(do: str, *, none: bool = False, group: str | None = None) -> Any:
    """``--labels``: measured behaviour, what a person intended, or nothing."""
    nothing = " none guesses from unlabelled activity." if none else ""
    return typer.Option(
        rich_help_panel=group,
        help=f"Labels to {do}: behavior, or intention:observation, :proportional, :constant or "
        f":refit, from trials and the shown cursor.{nothing}",
    )


def split_to(do: str, *, of: str = "recording") -> Any:
    """``--split``: the part of a recording that a command works on."""
    return typer.Option(help=f"Split of the {of} to {do}.")


def seed_of(what: str) -> Any:
    """``--seed``: what it decides, as a sentence."""
    return typer.Option(min=0, help=what)


Command = TypeVar("Command", bound=Callable[..., None])


def command(
    panel: str,
    *,
    example: str,
    kind: type[ScreenCommand] = ScreenCommand,
    old: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """Register a command whose deliberate errors are one line and their own exit code.

    Args:
        panel: the group of commands that it belongs to.
        example: a call that runs as it is printed.
        kind: how it takes its words.
        old: what an option was called before → what it is called now.
    """
    if old:
        kind = type(kind.__name__, (kind,), {"old": dict(old)})

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with bar_closed_behind(), no_empty_folder_behind():
                    function(*args, **kwargs)
            except PoyoEdgeError as error:
                raise ended(error, error.exit_code) from None
            except KeyboardInterrupt:
                raise ended(KeyboardInterrupt("interrupted"), 130) from None
            except OSError as error:
                raise ended(error, 5) from None

        app.command(rich_help_panel=panel, epilog=f"Example: {example}", cls=kind)(guarded)
        return function

    return register


def ended(error: BaseException, code: int) -> typer.Exit:
    """The end of a command: one line on stderr and an exit code."""
    if os.environ.get("POYO_EDGE_DEBUG"):
        traceback.print_exception(error)
    complain(error)
    return typer.Exit(code)


def refused(error: Any) -> typer.Exit:
    """The end of a command whose words typer cannot use."""
    message = " ".join(error.format_message().split()).rstrip(".")
    path = "poyo-edge" if error.ctx is None else error.ctx.command_path
    return ended(UsageError(f"{message}; see {path} --help"), 2)


def needs(extra: str, module: str) -> Any:
    """A module that imports what an extra brings.

    Raises:
        MissingExtraError: the extra is not installed; with the pip command that does it.
    """
    return imported(module, extra, "this command")


def can_draw() -> bool:
    """Whether PNGs can be drawn; reports draw their own pictures and need nothing."""
    return importlib.util.find_spec("matplotlib") is not None


def require_drawing(folder: Path) -> None:
    """Find out before any work that pictures can be drawn into the folder."""
    if not can_draw():
        raise MissingExtraError("matplotlib", "plot", "drawing pictures")
    require_report(folder)


def require_report(folder: Path) -> None:
    """Find out before any work that a report can be written into the folder, and make it.

    What is made goes again at the end of a command that wrote nothing into it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for pictures, got a file; name another")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _MADE.extend(made)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: expected a folder that can be written, got one that cannot")


@contextlib.contextmanager
def no_empty_folder_behind() -> Iterator[None]:
    """Remove what ``require_report`` has made, the innermost first, as far as it is empty."""
    try:
        yield
    finally:
        while _MADE:
            with contextlib.suppress(OSError):  # something is in it, or it is gone
                _MADE.pop(0).rmdir()


def realtime_settings(
    cpu: Sequence[int] | None, priority: int | None, lock_memory: bool, gc_off: bool
) -> RealtimeSettings:
    """What ``--cpu``, ``--priority``, ``--lock-memory`` and ``--gc-off`` ask the system for."""
    from poyo_edge.runtime.rig.realtime import RealtimeSettings

    return RealtimeSettings(
        cpus=tuple(cpu or ()), priority=priority, lock_memory=lock_memory, gc_off=gc_off
    )


def recordings_in(data: Path) -> list[Path]:
    """The recordings of a folder and of the folders in it, or the one that is named.

    Raises:
        UsageError: there are none.
    """
    from poyo_edge.inspecting import recordings_below  # it needs h5py

    found = [data] if data.is_file() else recordings_below(data)
    if not found:
        raise UsageError(f"{data}: expected recordings (*.h5), got none; correct --data")
    return found
