"""wnexplore predict: classify images with a checkpoint, or detect in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wnexplore.cli.options import CheckpointFile, NamedBackbone
from wnexplore.cli.output import notify, say

if TYPE_CHECKING:
    from wnexplore.training.evaluate import Answer, Detected


def predict(
    checkpoint: CheckpointFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    backbone: NamedBackbone = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of a detector: draw each image with its boxes, as NAME.png."),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of a detector: the score above which boxes count; by default 0.5."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """The five most probable classes of each image; of a detector the boxes, with names and scores.

    Preprocessing is that of `evaluate` for a folder, and a detector's boxes are in pixels of the image.
    Unreadable images are reported with the reason, and the others are still classified (exit code 1). All
    products are float32, without TF32.
    """
    from wnexplore.errors import InputError, shown
    from wnexplore.measure.environment import resolve_device
    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.training.checkpoint import open_checkpoint
    from wnexplore.training.evaluate import detect
    from wnexplore.training.evaluate import predict as classify

    trained = open_checkpoint(checkpoint, backbone)
    on = resolve_device(device)
    detects = trained.metadata.point.task == "detection"
    for option, value in (("--out", out), ("--min-score", min_score)):
        if value is not None and not detects:
            raise InputError(f"{option} is for a detector, and this network classifies: leave {option} out")
    if out is not None:
        _check_names(images)
    with translate_network_errors(trained.metadata.point.backbone):
        answers: Mapping[Path, Any] = (
            detect(trained, images, on, 0.5 if min_score is None else min_score)
            if detects
            else classify(trained, images, on, notify)
        )
    readable = {path: found for path, found in answers.items() if not isinstance(found, str)}
    if as_json:
        _print_json({str(path): _plain(found) for path, found in readable.items()})
    else:
        for path, found in readable.items():
            say(f"{shown(path, _PATH)}: {_in_words(found)}")
    if out is not None:
        _draw(readable, out)
    for path, answer in answers.items():
        if isinstance(answer, str):
            notify(f"wnexplore: can't read image {shown(path, _PATH)}: {answer}")
    if len(readable) < len(answers):
        raise typer.Exit(1)


def _plain(found: Answer | Detected) -> list[dict[str, Any]]:
    """As JSON values."""
    if isinstance(found, list):
        return [{"class": name, "probability": share} for name, share in found]
    return [{"class": one.name, "score": one.score, "box": list(one.box)} for one in found.objects]


def _in_words(found: Answer | Detected) -> str:
    from wnexplore.errors import shown

    if isinstance(found, list):
        return ", ".join(f"{shown(name)} {100 * share:.1f} %" for name, share in found)
    said = (
        f"{shown(one.name)} {100 * one.score:.1f} % at {', '.join(f'{side:.0f}' for side in one.box)}"
        for one in found.objects
    )
    return "; ".join(said) or "no object"


def _print_json(answers: Mapping[str, Any]) -> None:
    import json

    text = json.dumps(answers, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        text = json.dumps(answers, indent=2, allow_nan=False)
    typer.echo(text)


def _check_names(images: list[Path]) -> None:
    """Raise `InputError` if two images would be drawn into one file."""
    from wnexplore.errors import InputError, shown

    seen: dict[str, Path] = {}
    for path in images:
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise InputError(
                f"{shown(other, _PATH)} and {shown(path, _PATH)} would both be drawn as"
                f" {shown(path.stem)}.png: give them one after another, with another --out"
            )


def _draw(found: Mapping[Path, Any], folder: Path) -> None:
    import io

    from wnexplore.files import make_folder, write_atomically

    make_folder(folder)
    for path, detected in found.items():
        data = io.BytesIO()
        detected.drawn().save(data, "png")
        drawing = folder / f"{path.stem}.png"
        write_atomically(drawing, data.getvalue())
        notify(f"wrote {drawing}")


_PATH = 4096
"""Most characters of a path in messages."""
