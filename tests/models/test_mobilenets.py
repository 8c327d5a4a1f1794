"""MobileNetV2 and MobileNetV3-small against torchvision's, and with methods in their blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.examples import examples, rest_slow
from tests.models.checks import METHODS, check_gradients, check_start, parameter_count, randomise
from tests.models.shallow import shallow
from wnexplore.design.conv_sites import block_convs
from wnexplore.design.methods import METHODS as ALL_METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.models.onnx_export import export_onnx, open_session
from wnexplore.nn import GeneratedConv2d, formulation_set

TORCHVISIONS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
}
NARROW = [f"{family}_x0_35" for family in TORCHVISIONS]


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("width", [1.0, 0.75])
@pytest.mark.parametrize("family", TORCHVISIONS)
def test_plain_networks_are_torchvisions(family: str, width: float) -> None:
    torch.manual_seed(0)
    theirs = TORCHVISIONS[family](width_mult=width)
    randomise(theirs)
    ours = build(family if width == 1 else f"{family}_x0_75")
    assert shapes(ours) == shapes(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)

    def logits(model: nn.Module) -> Tensor:
        torch.manual_seed(1)  # For the dropout.
        with torch.no_grad():
            found: Tensor = model(x)
        return found

    assert_near(logits(ours), logits(theirs))
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-4)
    assert_near(logits(ours.eval()), logits(theirs.eval()))


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@given(st.sampled_from(sorted(TORCHVISIONS)), st.integers(100, 4000).filter(lambda width: width != 1000))
@examples(15)
def test_channels_are_torchvisions_at_any_width(family: str, thousandths: int) -> None:
    full, digits = divmod(thousandths, 1000)
    name = f"{family}_x{full}_{f'{digits:03}'.rstrip('0') or '0'}"
    with torch.device("meta"):
        assert shapes(build(name)) == shapes(TORCHVISIONS[family](width_mult=thousandths / 1000))


@pytest.mark.parametrize(("name", "millions"), [("mobilenet_v2", 3.504872), ("mobilenet_v3_small", 2.542856)])
def test_golden_parameter_counts(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert parameter_count(build(name)) == round(millions * 1e6)


@pytest.mark.parametrize("width", ["0_1", "0_35", "1_5"])
@pytest.mark.parametrize("family", TORCHVISIONS)
def test_generated_layers_are_those_that_design_lists(family: str, width: str) -> None:
    name = f"{family}_x{width}"
    with torch.device("meta"):
        model = build(name, "weightnet", M=1, G=1)
    built = [
        (path, m.in_channels, m.out_channels, m.kernel_size, m.groups)
        for path, m in model.named_modules()
        if isinstance(m, GeneratedConv2d)
    ]
    assert built == [
        (layer.name, layer.in_channels, layer.out_channels, (layer.kernel_size,) * 2, layer.groups)
        for layer in block_convs(name)
    ]


@pytest.mark.parametrize(
    ("family", "stages", "blocks"),
    [
        ("mobilenet_v2", "1", {1}),
        ("mobilenet_v2", "2+4", {2, 3, 7, 8, 9, 10}),
        ("mobilenet_v2", "3+5", {4, 5, 6, 11, 12, 13}),
        ("mobilenet_v2", "6+7", {14, 15, 16, 17}),
        ("mobilenet_v3_small", "1+3", {1, 4, 5, 6, 7, 8}),
        ("mobilenet_v3_small", "2+4", {2, 3, 9, 10, 11}),
    ],
)
def test_stages_without_the_method_are_plain(family: str, stages: str, blocks: set[int]) -> None:
    with torch.device("meta"):
        plain = shapes(build(family))
        generated, gated = (shapes(build(family, method, stages=stages)) for method in ("weightnet", "se"))
    assert features_of(generated.keys() - plain.keys()) == blocks
    assert features_of(plain.keys() - generated.keys()) == blocks
    assert features_of(gated.keys() - plain.keys()) == blocks
    assert plain.keys() <= gated.keys()


def features_of(names: set[str]) -> set[int]:
    return {int(name.split(".")[1]) for name in names}


@pytest.mark.parametrize("stage", ["0", "5", "8"])
def test_a_stage_that_is_none_is_refused(stage: str) -> None:
    with pytest.raises(InputError, match=r"mobilenet_v3_small has 1, 2, 3, 4: name some, such as 3\+4"):
        build("mobilenet_v3_small", "se", stages=stage)


# The attention of a global context is the same whatever its bias is.
@pytest.mark.parametrize(
    "method", rest_slow(sorted(set(ALL_METHODS) - {"gc"}), "se", "sk", "odconv", "weightnet")
)
@pytest.mark.parametrize("backbone", NARROW)
def test_every_parameter_gets_a_gradient(backbone: str, method: str) -> None:
    torch.manual_seed(0)
    check_gradients(build(backbone, method, stem="small", num_classes=10), 48)


@pytest.mark.parametrize("method", ["plain", "se", "weightnet"])
@pytest.mark.parametrize("backbone", TORCHVISIONS)
def test_fresh_logits_are_of_order_one(backbone: str, method: str) -> None:
    check_start(backbone, {"method": method})


@pytest.mark.parametrize("axes", METHODS, ids=lambda axes: axes["method"])
@pytest.mark.parametrize("backbone", NARROW)
def test_an_image_gets_the_same_logits_alone_in_a_batch_and_in_the_published_formulation(
    backbone: str, axes: dict[str, object]
) -> None:
    torch.manual_seed(0)
    model = build(backbone, stem="small", num_classes=10, **axes).eval()  # type: ignore[call-overload]
    randomise(model)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(
            torch.cat([model(image[None]) for image in x]), expected, rtol=1e-4, atol=1e-4
        )
        with formulation_set(model, "published"):
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", NARROW)
def test_the_small_stem_keeps_the_resolution(backbone: str) -> None:
    for stem, size in (("small", 32), ("imagenet", 16)):
        model = build(backbone, stem=stem)
        assert isinstance(model.features, nn.Sequential)
        assert model.features[0](torch.randn(1, 3, 32, 32)).shape[2:] == (size, size)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["plain", "se", "weightnet"])
@pytest.mark.parametrize("backbone", NARROW)
def test_one_graph_for_every_batch(backbone: str, method: str) -> None:
    network = _whole_if_plain(backbone, method).eval()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for batch in (5, 2, 7):
        images = torch.randn(batch, 3, 32, 32)
        torch._dynamo.mark_dynamic(images, 0)
        with torch.compiler.set_stance("default" if batch == 5 else "fail_on_recompile"), torch.no_grad():
            torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["plain", "weightnet"])
@pytest.mark.parametrize("backbone", NARROW)
def test_exported_for_any_batch(backbone: str, method: str, tmp_path: Path) -> None:
    network = _whole_if_plain(backbone, method)
    export_onnx(network, tmp_path / "network.onnx", resolution=32)
    session = open_session(tmp_path / "network.onnx", "cpu")
    for batch in (1, 7):
        images = torch.randn(batch, 3, 32, 32)
        with torch.inference_mode():
            expected = network(images)
        (logits,) = session.run(None, {"images": images.numpy()})
        assert_near(torch.from_numpy(logits), expected)


def _whole_if_plain(backbone: str, method: str) -> nn.Module:
    """The network, of which a method's kinds of blocks are enough."""
    torch.manual_seed(0)
    point = DesignPoint.of(backbone, method, stem="small", num_classes=10)
    network = build(point) if method == "plain" else shallow(point)
    randomise(network)
    return network
