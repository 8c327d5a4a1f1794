"""wnexplore export-onnx: one network as an .onnx file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wnexplore.cli.axes import legal_point, point_options
from wnexplore.cli.output import notify, say


@point_options(after="backbone", without=("backbone",))
def export_onnx(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write.")],
    backbone: Annotated[
        str | None, typer.Option(help="Backbone; left out for a checkpoint of 'wnexplore train'.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights: a checkpoint of 'wnexplore train', or the state dict of this network, saved by"
            " torch.save.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key of the weights in a torch.save file that holds several: model, model_ema or another.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of random weights without --checkpoint.")
    ] = 0,
) -> None:
    """Write a network as an .onnx file, and compare onnxruntime with torch.

    The batch size is dynamic: "images" is (batch, 3, resolution, resolution) and "logits" (batch,
    classes). The design point is in the file's metadata. Needs pip install "wnexplore[onnx]".
    """
    from wnexplore.errors import InputError, RunError
    from wnexplore.files import check_writable, write_atomically

    point = None
    if checkpoint is None and backbone is None:
        raise InputError(
            "nothing to export: give --backbone, or --checkpoint with a file of 'wnexplore train'"
        )
    if checkpoint is None or not _says_network(context, checkpoint):
        point = legal_point(context.params)
    if weights is not None and (checkpoint is None or point is None):
        raise InputError(
            "--weights selects weights in a torch.save file: give the file by --checkpoint, with --backbone"
        )
    if out.suffix != ".onnx":
        raise InputError(f"can't export to {str(out)!r}: its name must end in .onnx")
    check_writable(out)

    import torch

    from wnexplore.measure.failure import translate_network_errors
    from wnexplore.models import build, onnx_export
    from wnexplore.training.checkpoint import load_checkpoint, open_checkpoint

    onnx_export.require_onnx()
    torch.manual_seed(seed)
    if point is not None:
        network = build(point)
        if checkpoint is not None:
            load_checkpoint(network, checkpoint, weights, notify)
    else:
        assert checkpoint is not None, "it says the network"
        trained = open_checkpoint(checkpoint, backbone)
        network, point = trained.network, trained.metadata.point
    with translate_network_errors(point.backbone):
        data = onnx_export.onnx_bytes(network, resolution=point.resolution, point=point)
        check = onnx_export.check_onnx(data, network, resolution=point.resolution)
    found = f"{out}: {len(data) / 1e6:.1f} MB, opset {check.opset}, logits"
    gap = f"{check.difference:.1e} of the largest from torch's at batch 1 and 7"
    torch_note = f", where float32 alone makes {check.torch_difference:.1e} in torch"
    if check.torch_difference <= onnx_export.TOLERANCE:
        torch_note = ""
    if not check.is_rounding:
        raise RunError(
            f"{found} in onnxruntime {gap}: more than the {onnx_export.TOLERANCE:g} of rounding{torch_note};"
            " nothing was written"
        )
    write_atomically(out, data)
    say(f"{found} at most {gap}{torch_note}")


def _says_network(context: typer.Context, checkpoint: Path) -> bool:
    """Whether the checkpoint's metadata defines the network, and no option overrides it.

    A backbone in a Python file must be named in addition; other axes define a new point, for which the
    checkpoint has only the weights. Raises `InputError` as `read_checkpoint_metadata`.
    """
    from wnexplore.design.point import AXES
    from wnexplore.training.checkpoint import KEY, SUFFIX, read_checkpoint_metadata
    from wnexplore.training.checkpoint_header import is_in_file, read_header

    backbone = context.params["backbone"]
    if backbone is None:
        read_checkpoint_metadata(checkpoint)
        return True
    if checkpoint.suffix != SUFFIX or not is_in_file(backbone) or KEY not in read_header(checkpoint).metadata:
        return False
    read_checkpoint_metadata(checkpoint, backbone)
    return not any(_is_given(context, name) for name in AXES if name != "backbone")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
