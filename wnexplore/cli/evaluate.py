"""wnexplore evaluate: a checkpoint on the test images of a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from wnexplore.cli.options import CheckpointFile, NamedBackbone
from wnexplore.cli.output import named_damaged, notify, say


def evaluate(
    checkpoint: CheckpointFile,
    data: Annotated[str | None, typer.Option(help="Data set; by default that of the training.")] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Image size; by default the network's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images at a time.")] = 64,
    backbone: NamedBackbone = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Test a checkpoint on the test images of its data set or another one.

    It prints top-1, top-5 and test loss, or of a detector average precision and recall. CHECKPOINT is a
    .safetensors file of `wnexplore train`, such as runs/train/checkpoints/best.safetensors. All products are
    float32, without TF32.
    """
    import json
    import math
    from dataclasses import asdict

    from wnexplore.design.protocol import in_words
    from wnexplore.design.size_limits import check_images_fit
    from wnexplore.errors import InputError, RunError, shown
    from wnexplore.measure.environment import resolve_device
    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.measure.memory_fit import split_misfit
    from wnexplore.measure.torch_settings import PRECISION
    from wnexplore.models.detector import Detector
    from wnexplore.results.columns import COLUMNS
    from wnexplore.training.accuracy import Evaluation
    from wnexplore.training.checkpoint import open_checkpoint
    from wnexplore.training.evaluate import test_data
    from wnexplore.training.objective import evaluation_of

    on = resolve_device(device)
    if resolution is not None:
        check_images_fit(resolution)
    trained = open_checkpoint(checkpoint, backbone)
    loaded = test_data(trained, data, resolution, notify)
    misfit = split_misfit(trained.metadata.point, [loaded.test], batch_size, on, resolution)
    if misfit is not None:
        raise InputError(misfit)
    if resolution is not None and isinstance(trained.network, Detector):
        trained.network.resize_to(resolution)
    with translate_network_errors(trained.metadata.point.backbone):
        found = evaluation_of(trained.network.to(on), loaded.test, batch_size, on)
    if found.loss is not None and not math.isfinite(found.loss):
        raise RunError("the network gives values that are not finite")
    for path in loaded.test.why_damaged:
        notify(f"skipped, as it can't be read: {named_damaged(path, loaded.test.why_damaged)}")
    if as_json:
        # loss: its name of before, for those who read it.
        figures = asdict(found)
        if found.loss is None:
            del figures["loss"]
        else:
            figures["test_loss"] = found.loss
        protocol = {"device": on, "precision": PRECISION, "batch_size": batch_size}
        protocol |= {"recipe": dict(trained.metadata.recipe), "seed": trained.metadata.seed}
        typer.echo(json.dumps(figures | protocol, allow_nan=False))
        return
    if isinstance(found, Evaluation):
        said = f"top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} %, test loss {found.loss:.4f}"
    else:
        known = {name: value for name, value in found.figures.items() if value is not None}
        said = ", ".join(f"{COLUMNS[name].heading} {value:.2f} %" for name, value in known.items())
    say(f"{trained.metadata.point}: {said} on {found.images} images ({on}, {PRECISION})")
    recipe, seed = in_words(trained.metadata.recipe), trained.metadata.seed
    say(f"trained on {shown(trained.metadata.data, 300)}: {recipe}, seed {seed}")
