"""wnexplore analyze: the kernels that a checkpoint generates for different images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.options import CheckpointFile, NamedBackbone
from wnexplore.cli.output import named_damaged, notify, say


def analyze(
    checkpoint: CheckpointFile,
    data: Annotated[str | None, typer.Option(help="Data set; by default that of the training.")] = None,
    samples: Annotated[int, typer.Option(min=2, max=1_000_000, help="Number of test images.")] = 512,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer whose kernels the t-SNE shows; by default the last one that generates kernels."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the files, created if missing.")] = Path("analysis"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the t-SNE.")] = 0,
    backbone: NamedBackbone = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Show how much the kernels that a network generates depend on the image, layer by layer.

    The cosine similarity of the kernels of each pair of images (at most 256 images), within a class and
    between classes; the spread of the entries of the activation vectors alpha over the images, and which are
    dead (the same for every image) or saturated (at an end of their range). Writes kernels.csv,
    similarity.png, alpha.png and tsne.png, the kernels of one layer by class. All products are float32,
    without TF32.
    """
    from wnexplore.cli.terminal import output
    from wnexplore.files import check_folder, make_folder, write_atomically
    from wnexplore.measure.environment import resolve_device
    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.report.figure_files import save
    from wnexplore.report.figures import kernel_figures
    from wnexplore.report.kernel_table import render, to_csv
    from wnexplore.training.analyze import analyze as look
    from wnexplore.training.checkpoint import open_checkpoint
    from wnexplore.training.evaluate import test_data

    on = resolve_device(device)
    check_folder(out)
    trained = open_checkpoint(checkpoint, backbone)
    loaded = test_data(trained, data, None, notify)
    with translate_network_errors(trained.metadata.point.backbone):
        result = look(trained, loaded, samples=samples, layer=layer, seed=seed, device=on)
    make_folder(out)
    for path in loaded.test.why_damaged:
        notify(f"skipped, as it can't be read: {named_damaged(path, loaded.test.why_damaged)}")
    for part in render(result):
        output().print(part)
    write_atomically(out / "kernels.csv", to_csv(result).encode())
    say(out / "kernels.csv")
    for name, figure in kernel_figures(result).items():
        save(figure, out / f"{name}.png")
        say(out / f"{name}.png")
    if result.map is None:
        notify("no t-SNE: there are fewer than 5 images, or one kernel for all of them")
