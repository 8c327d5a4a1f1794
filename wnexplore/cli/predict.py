"""wnexplore predict: classify images with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.options import CheckpointFile, NamedBackbone
from wnexplore.cli.output import notify, say


def predict(
    checkpoint: CheckpointFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    backbone: NamedBackbone = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """The five most probable classes of each image, with probabilities.

    Preprocessing is that of `evaluate` for a folder. Unreadable images are reported with the reason, and the
    others are still classified (exit code 1). All products are float32, without TF32.
    """
    import json

    from wnexplore.errors import shown
    from wnexplore.measure.environment import resolve_device
    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.training.checkpoint import open_checkpoint
    from wnexplore.training.evaluate import predict as ask

    trained = open_checkpoint(checkpoint, backbone)
    on = resolve_device(device)
    with translate_network_errors(trained.metadata.point.backbone):
        answers = ask(trained, images, on, notify)
    readable = {path: found for path, found in answers.items() if not isinstance(found, str)}
    if as_json:
        answers_by_path = {
            str(path): [{"class": c, "probability": p} for c, p in found] for path, found in readable.items()
        }
        text = json.dumps(answers_by_path, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            text = json.dumps(answers_by_path, indent=2, allow_nan=False)
        typer.echo(text)
    else:
        for path, found in readable.items():
            named = ", ".join(f"{shown(name)} {100 * share:.1f} %" for name, share in found)
            say(f"{shown(path, _PATH)}: {named}")
    for path, answer in answers.items():
        if isinstance(answer, str):
            notify(f"wnexplore: can't read image {shown(path, _PATH)}: {answer}")
    if len(readable) < len(answers):
        raise typer.Exit(1)


_PATH = 4096
"""Most characters of a path in messages."""
