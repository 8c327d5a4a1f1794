"""Layers that weigh channels, pixels, paths or kernels: beside timm's, by arithmetic, where they start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.cbam import CbamModule
from timm.layers.cond_conv2d import CondConv2d as TimmCondConv2d
from timm.layers.eca import EcaModule
from timm.layers.global_context import GlobalContext as TimmGlobalContext
from timm.layers.selective_kernel import SelectiveKernel
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional

from tests.examples import examples
from wnexplore.design.methods import METHODS, attention_span
from wnexplore.errors import InputError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models.method_layers import layer_class
from wnexplore.models.onnx_export import TOLERANCE, check_onnx, export_onnx
from wnexplore.nn import CondConv2d, Gate, GeneratedConv2d, SqueezeExcite
from wnexplore.nn.cbam import ConvBlockAttention
from wnexplore.nn.channel_attention import EfficientChannelAttention
from wnexplore.nn.dynamic import DynamicConv2d
from wnexplore.nn.global_context import GlobalContext
from wnexplore.nn.selective_kernel import SelectiveKernelConv2d

DOUBLE = torch.float64

GATES: dict[str, Callable[[int], Gate]] = {
    name: layer_class(method.layer) for name, method in METHODS.items() if method.kind == "gate"
}


def _convolution(layer: str) -> Callable[[int], nn.Module]:
    return lambda channels: cast(nn.Module, layer_class(layer)(channels, channels, 3))


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    **GATES,
    **{
        name: _convolution(method.layer)
        for name, method in METHODS.items()
        if method.layer and method.kind != "gate"
    },
}
"""Channels -> a layer that keeps the shape of its input."""


def randomise(module: nn.Module) -> None:
    """Numbers of order one for every parameter and statistic, those included that start at 0 or 1."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.2, 1.2) if tensor.dim() == 1 else nn.init.normal_(tensor, std=0.3)


def copy_parameters(source: nn.Module, target: nn.Module, names: dict[str, str]) -> None:
    """Give `target` the state of `source`, all of it, whose names differ as `names` says."""
    state = target.state_dict()
    renamed = {}
    for name, tensor in source.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        renamed[names[prefix] + name.removeprefix(prefix)] = tensor
    assert renamed.keys() == state.keys()
    target.load_state_dict({name: renamed[name].view(tensor.shape) for name, tensor in state.items()})


def check_against(ours: nn.Module, theirs: nn.Module, names: dict[str, str], channels: int) -> None:
    """Equal in inference, in training and in what training leaves behind."""
    torch.manual_seed(0)
    ours, theirs = ours.double(), theirs.double()
    randomise(ours)
    copy_parameters(ours, theirs, names)
    x = torch.randn(3, channels, 7, 6, dtype=DOUBLE)
    for training in (False, True, False):
        ours.train(training)
        theirs.train(training)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [8, 48, 300])
def test_efficient_channel_attention_is_timms(channels: int) -> None:
    theirs = EcaModule(channels)
    check_against(EfficientChannelAttention(channels), theirs, {"": ""}, channels)


def test_efficient_channel_attention_reaches_as_far_as_timms() -> None:
    for channels in (*range(1, 70), 127, 128, 129, 511, 512, 513, 2047, 2048, 2049, 2**15):
        assert EcaModule(channels).conv.kernel_size == (attention_span(channels),)


def test_squeeze_excite_is_timms() -> None:
    # Its linear layers are 1x1 convolutions.
    check_against(SqueezeExcite(48, 2), SEModule(48, rd_channels=24), {"": ""}, 48)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 4), (1, 2, 2), (1, 1, 8)])
def test_condconv_is_timms(stride: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    ours = CondConv2d(8, 16, 3, stride, dilation, dilation, groups, experts=5).double()
    theirs = TimmCondConv2d(8, 16, 3, stride, dilation, dilation, groups, num_experts=5).double()
    theirs.load_state_dict({"weight": ours.weight.detach().flatten(1)})
    x = torch.randn(3, 8, 9, 7, dtype=DOUBLE)
    routing = ours.routing(x.mean((2, 3))).sigmoid()
    torch.testing.assert_close(ours(x), theirs(x, routing), rtol=1e-10, atol=1e-10)


def test_conv_block_attention_is_timms() -> None:
    # Its two parts are modules of their own; its linear layers 1x1 convolutions.
    theirs = CbamModule(48, rd_channels=24)
    names = {"fc": "channel.fc", "conv": "spatial.conv.conv", "norm": "spatial.conv.bn"}
    check_against(ConvBlockAttention(48, reduction=2), theirs, names, 48)


def test_global_context_is_timms() -> None:
    # What is added comes of an mlp of 1x1 convolutions, with timm's eps, 1e-6, in the normalisation.
    theirs = TimmGlobalContext(48, use_attn=True, fuse_add=True, fuse_scale=False, rd_channels=24)
    norm = theirs.get_submodule("mlp_add.norm")
    assert isinstance(norm, nn.LayerNorm)
    norm.eps = 1e-5
    names = {"attention": "conv_attn", "fc": "mlp_add.fc", "norm": "mlp_add.norm"}
    check_against(GlobalContext(48, reduction=2), theirs, names, 48)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 3), (1, 2, 1), (2, 2, 12)])
def test_selective_kernels_are_timms(stride: int, dilation: int, groups: int) -> None:
    # timm makes of sizes 3 and 5 two 3x3 convolutions at dilation d and 2d, and unless told otherwise
    # gives each half of the input. What weighs the paths is 1x1 convolutions and a normalisation for images.
    theirs = SelectiveKernel(
        12,
        36,
        [3, 5],
        stride=stride,
        dilation=dilation,
        groups=groups,
        split_input=False,
        rd_channels=18,
    )
    dilations = [m.dilation[0] for m in theirs.paths.modules() if isinstance(m, nn.Conv2d)]
    assert dilations == [dilation, 2 * dilation]
    names = {f"paths.{i}.{j}": f"paths.{i}.{name}" for i in (0, 1) for j, name in enumerate(("conv", "bn"))}
    names |= {"fc1": "attn.fc_reduce", "norm": "attn.bn", "fc2": "attn.fc_select"}
    ours = SelectiveKernelConv2d(12, 36, 3, stride, dilation=dilation, groups=groups, reduction=2)
    check_against(ours, theirs, names, 12)


@given(
    kernel=st.sampled_from([3, 5, (1, 3), (5, 3)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    padding=st.sampled_from([None, 0, 1, (2, 0)]),
    dilation=st.sampled_from([1, 2, (2, 1)]),
    groups=st.sampled_from([1, 2, 4]),
)
@examples(40)
def test_both_paths_of_selective_kernels_look_at_the_same_places(
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | None,
    dilation: int | tuple[int, int],
    groups: int,
) -> None:
    layer = SelectiveKernelConv2d(4, 8, kernel, stride, padding, dilation, groups).double().eval()
    weights = [layer.get_parameter(f"paths.{i}.0.weight") for i in (0, 1)]
    high, wide = weights[0].shape[2:]
    # Of a kernel that is its centre alone, the dilation doesn't show.
    centre = torch.zeros(8, 4 // groups, high, wide, dtype=DOUBLE)
    centre[:, :, high // 2, wide // 2] = torch.randn(8, 4 // groups, dtype=DOUBLE)
    for weight in weights:
        weight.data = centre
    x = torch.randn(2, 4, 13, 12, dtype=DOUBLE)
    if padding is None:
        down, across = (dilation, dilation) if isinstance(dilation, int) else dilation
        padding = (down * (high - 1) // 2, across * (wide - 1) // 2)
    expected = functional.conv2d(x, centre, None, stride, padding, dilation, groups).relu()
    normalised = expected / (1 + layer.norm.eps) ** 0.5
    torch.testing.assert_close(layer(x), normalised, rtol=1e-12, atol=1e-12)


def test_selective_kernels_need_more_than_one_image_to_train() -> None:
    layer, x = SelectiveKernelConv2d(4, 4, 3), torch.randn(1, 4, 5, 5)
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(x)
    assert layer.eval()(x).shape == x.shape


class OnImages(nn.Module):
    """A layer that sees the 3 channels of an image as often as it wants."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.layer(images.repeat(1, self.channels // 3, 1, 1))
        return y


# Channels, features after the reduction, pixels.
C, R, HW = 48, 24, 10 * 10
# The same and fan-in after a strided, grouped convolution.
OUT, R_OUT, HW_OUT, F = 60, 30, 5 * 5, 16 * 9


@pytest.mark.parametrize(
    ("layer", "params", "multiply_adds"),
    [
        pytest.param(EfficientChannelAttention(C), 3, 3 * C, id="eca"),
        pytest.param(ConvBlockAttention(C, 2), 2 * C * R + 98 + 2, 4 * C * R + 98 * HW, id="cbam"),
        pytest.param(
            GlobalContext(C, 2),
            (C + 1) + (C * R + R) + 2 * R + (R * C + C),
            C * HW + C * HW + 2 * C * R,
            id="gc",
        ),
        pytest.param(
            SelectiveKernelConv2d(C, OUT, 3, 2, groups=3, reduction=2),
            2 * OUT * F + 2 * 2 * OUT + OUT * R_OUT + 2 * R_OUT + R_OUT * 2 * OUT,
            2 * OUT * F * HW_OUT + 3 * OUT * R_OUT,
            id="sk",
        ),
        pytest.param(
            DynamicConv2d(C, OUT, 3, 2, groups=3, experts=5, reduction=2),
            (C * R + R) + (R * 5 + 5) + 5 * OUT * F,
            C * R + R * 5 + 5 * OUT * F + OUT * F * HW_OUT,
            id="dynamic",
        ),
    ],
)
def test_counts(layer: nn.Module, params: int, multiply_adds: int) -> None:
    for batch_size in (1, 3):
        counts = measure_complexity(OnImages(layer, C), 10, batch_size)
        assert (counts.params, counts.flops) == (params, multiply_adds)


@pytest.mark.parametrize("reduction", [1, 16])
def test_the_reduction_leaves_no_fewer_than_16(reduction: int) -> None:
    hidden = {1: 40, 16: 16}[reduction]
    for layer in (
        ConvBlockAttention(40, reduction),
        GlobalContext(40, reduction),
        SelectiveKernelConv2d(40, 40, 3, reduction=reduction),
        DynamicConv2d(40, 40, 3, reduction=reduction),
    ):
        assert layer.get_parameter("fc1.weight").shape == (hidden, 40)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](20).double()
    x = torch.randn(3, 20, 6, 5, dtype=DOUBLE, requires_grad=True)
    y = layer(x)
    (y * torch.randn_like(y)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()} | {"x": x.grad}
    # Added to what goes into softmax, it changes nothing.
    cancelled = gradients.pop("attention.bias", None)
    assert cancelled is None or bool(cancelled.abs() < 1e-12)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert bool(torch.isfinite(gradient).all()), name
        assert bool((gradient.abs() > 1e-9).any()), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", GATES)
def test_gates_start_near_their_initial_scale(name: str, training: bool) -> None:
    torch.manual_seed(0)
    gate = GATES[name](64).train(training)
    # What a block gives: each channel normalised, or what a ReLU leaves of it.
    for x in (torch.randn(8, 64, 14, 14), torch.randn(8, 64, 14, 14).relu()):
        y = gate(x).detach()
        assert float((x * y).sum() / (x * x).sum()) == pytest.approx(gate.initial_scale, rel=0.1)
        assert float((y - gate.initial_scale * x).norm() / y.norm()) < 0.2


def test_the_paths_of_selective_kernels_start_near_equal() -> None:
    torch.manual_seed(0)
    layer, x = SelectiveKernelConv2d(32, 32, 3), torch.randn(8, 32, 10, 10)
    mean = (layer.paths[0](x) + layer.paths[1](x)).detach() / 2
    y = layer(x).detach()
    assert float((y - mean).norm() / y.norm()) < 0.2
    for i in (0, 1):
        weight = layer.get_parameter(f"paths.{i}.0.weight").detach()
        assert float(weight.std()) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", LAYERS)
def test_reset_draws_all_parameters_anew(name: str) -> None:
    layer = LAYERS[name](20)
    randomise(layer)
    torch.manual_seed(0)
    layer.reset_parameters()  # type: ignore[operator]
    torch.manual_seed(0)
    fresh = LAYERS[name](20)
    torch.manual_seed(0)
    fresh.reset_parameters()  # type: ignore[operator]
    for (key, ours), theirs in zip(layer.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](32)
    x = torch.randn(4, 32, 8, 8)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        z = layer(x.bfloat16())
    assert z.dtype == torch.bfloat16
    for found in (y, z):
        assert float((found - expected).detach().norm() / expected.detach().norm()) < 0.02
    y.float().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_on_no_device(name: str) -> None:
    with torch.device("meta"):
        layer, x = LAYERS[name](20), torch.empty(3, 20, 6, 5)
    assert all(p.is_meta for p in layer.parameters())
    # Whether autocast is on can't be asked of this device: the attention is all of a generated layer here.
    if isinstance(layer, GeneratedConv2d):
        y = layer.activations(x, None)
        assert y.shape == (3, layer.shape.generator_groups * layer.shape.inputs_per_group)
    else:
        y = layer(x)
        assert y.shape == x.shape
    assert y.is_meta


class Network(nn.Module):
    """(N, 3, H, W) -> (N, 5) through every layer, none at its start."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3)
        self.layers = nn.Sequential(*(make(20) for make in LAYERS.values()))
        self.classifier = nn.Linear(20, 5)
        randomise(self)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.layers(self.stem(images)).mean((2, 3)))
        return y


@pytest.fixture
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh")
@pytest.mark.slow
def test_all_compile_to_one_graph_for_any_batch() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for batch in (5, 2, 7):
        images = torch.randn(batch, 3, 9, 9)
        torch._dynamo.mark_dynamic(images, 0)
        with torch.compiler.set_stance("default" if batch == 5 else "fail_on_recompile"), torch.no_grad():
            found = compiled(images)
        expected = network(images)
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_all_are_exported_to_onnx_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network()
    export_onnx(network, tmp_path / "network.onnx", resolution=9)
    assert check_onnx(tmp_path / "network.onnx", network, resolution=9).difference <= TOLERANCE


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (4, 5, 5), (2, 4)])
def test_refused_images(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\bx\b.*\(N, 4, H, W\)"):
        LAYERS[name](4)(torch.randn(shape))


@pytest.mark.parametrize("name", LAYERS)
def test_refused_channels(name: str) -> None:
    with pytest.raises(InputError, match="channels is '0'"):
        LAYERS[name](0)


@pytest.mark.parametrize("make", [ConvBlockAttention, GlobalContext])
def test_refused_reductions(make: Callable[[int, int], Gate]) -> None:
    with pytest.raises(InputError, match="reduction is '0'"):
        make(4, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_channels": 0}, "out_channels is '0'"),
        ({"groups": 3}, "groups = 3.*in_channels = 4"),
        ({"groups": 0}, "groups is '0'"),
        ({"kernel_size": 1}, "kernel_size is 1x1"),
        ({"kernel_size": (3, 2)}, r"kernel_size = \(3, 2\)"),
        ({"stride": 0}, "stride is '0'"),
        ({"padding": -1}, "padding is '-1'"),
        ({"dilation": "2"}, "dilation is '2'"),
        ({"reduction": 0}, "reduction is '0'"),
    ],
)
def test_refused_arguments_of_selective_kernels(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        SelectiveKernelConv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | changes))
    assert "\n" not in str(error.value)
