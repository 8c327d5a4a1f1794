"""Networks as .onnx files, run in onnxruntime beside torch."""

import json
import os
import sys
import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import wnexplore
from tests.models.shallow import shallow
from wnexplore.design.backbones import ResNetSpec
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, RunError
from wnexplore.models import ShuffleNetV2
from wnexplore.models.method_layers import Method, method_of
from wnexplore.models.onnx_export import (
    POINT,
    TOLERANCE,
    Check,
    check_onnx,
    export_onnx,
    open_session,
    require_onnx,
)
from wnexplore.models.resnet import ResNetBlock
from wnexplore.models.shufflenet_v2 import ShuffleNetV2Block

ALL: list[tuple[str, dict[str, int]]] = [
    *((name, {}) for name in METHODS if name != "weightnet"),
    *(("weightnet", {"M": m, "G": g}) for m, g in ((1, 1), (2, 2), (4, 1), (8, 2))),
]


def _point(backbone: str, method: str, axes: dict[str, int]) -> DesignPoint:
    return DesignPoint.of(backbone, method, **axes, stem="small", resolution=32, num_classes=10)  # type: ignore[arg-type]


class _Blocks(nn.Module):
    """(N, 3, H, W) -> (N, 10) through a block of each backbone: the exporter takes long for a whole one."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2)
        residual = ResNetSpec((1, 1, 1, 1), bottleneck=False)
        self.blocks = nn.Sequential(
            ShuffleNetV2Block(24, 24, 48, method, downsample=True),
            ResNetBlock(48, 64, residual, method, stride=2, scale=1.0),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


class _Net(nn.Module):
    """(N, 3, H, W) -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.convolution(images).mean((2, 3)))
        return logits


class _Frozen(_Net):
    """Written for two images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.view(2, 3, 8, 8))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Net, Path]:
    """A network that was in training mode, and its file in opset 18."""
    network, path = _Net().train(), tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(network, path, resolution=8, opset=18)
    return network, path


@pytest.mark.parametrize(
    ("method", "axes"),
    [
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ALL[1:]),
    ],
)
def test_every_method_gives_the_same_as_torch_for_any_batch(
    method: str, axes: dict[str, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = _Blocks(method_of(_point("resnet18", method, axes)))
    _export_and_compare(network, tmp_path / "network.onnx")
    assert os.listdir(tmp_path) == ["network.onnx"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "method"), [("shufflenet_v2_x0_5", "weightnet"), ("resnet18", "plain")])
def test_every_backbone_is_exported_with_its_point(backbone: str, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    axes = {"M": 2, "G": 2} if method == "weightnet" else {}
    point, path = _point(backbone, method, axes), tmp_path / "network.onnx"
    _export_and_compare(wnexplore.build(point), path, point)
    message = open_session(path, "cpu").get_modelmeta().custom_metadata_map[POINT]
    assert DesignPoint.from_dict(json.loads(message)) == point


@pytest.mark.slow
def test_the_published_order_of_channels_is_exported_too(tmp_path: Path) -> None:
    network = shallow(_point("shufflenet_v2_x0_5", "plain", {}))
    assert isinstance(network, ShuffleNetV2)
    network.use_published_order()
    _export_and_compare(network, tmp_path / "network.onnx")


def test_names_shapes_and_the_opset_that_was_requested(exported: tuple[_Net, Path]) -> None:
    network, path = exported
    assert not network.training
    assert check_onnx(path, network, resolution=8).opset == 18
    session = open_session(path, "cpu")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["batch", 3, 8, 8])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 5])]
    assert POINT not in session.get_modelmeta().custom_metadata_map
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_the_same_network_is_the_same_file_and_reports_nothing_of_this_machine(
    exported: tuple[_Net, Path], tmp_path: Path
) -> None:
    network, path = exported
    export_onnx(network, tmp_path / "again", resolution=8, opset=18)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert str(Path(__file__).parent).encode() not in path.read_bytes()


def test_other_weights_are_found_to_differ(exported: tuple[_Net, Path]) -> None:
    network, path = exported
    assert check_onnx(path, network, resolution=8).difference <= TOLERANCE
    assert check_onnx(path, _Net(), resolution=8).difference > TOLERANCE
    spoilt = _Net()
    nn.init.constant_(spoilt.classifier.bias, float("nan"))
    assert not check_onnx(path, spoilt, resolution=8).difference <= TOLERANCE


def test_a_network_without_parameters(tmp_path: Path) -> None:
    network, path = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), tmp_path / "network.onnx"
    export_onnx(network, path, resolution=8)
    assert check_onnx(path, network, resolution=8).difference <= TOLERANCE


def test_a_network_for_one_batch_size_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ONNX") as error:
        export_onnx(_Frozen(), tmp_path / "network.onnx", resolution=8)
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_an_opset_that_can_not_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"opset is '7'.*\b18\b"):
        export_onnx(_Net(), tmp_path / "network.onnx", resolution=8, opset=7)
    assert not os.listdir(tmp_path)


def test_a_path_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.onnx"):
        export_onnx(_Net(), tmp_path / "nowhere" / "network.onnx", resolution=8)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_not_installed_is_reported_with_what_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'{package}.*pip install "wnexplore\[onnx\]"'):
        export_onnx(_Net(), tmp_path / "network.onnx", resolution=8)
    assert not os.listdir(tmp_path)


def test_a_gpu_needs_the_onnxruntime_for_it() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is for a GPU")
    with pytest.raises(InputError, match="onnxruntime-gpu"):
        require_onnx("cuda")


class _Head(nn.Module):
    """Logits that are all zero, or tiny, as those of a network whose head starts out so."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        nn.init.constant_(self.head.weight, scale)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).relu().mean((2, 3)))
        return logits


class _IllConditioned(nn.Module):
    """Differences of large numbers, of which float32 has the first digits only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 3), nn.Linear(64, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).mean((2, 3))
        logits: Tensor = self.head(features + 3000) - self.head(features * 0 + 3000)
        return logits


@pytest.mark.parametrize(
    "scale", [0.0, pytest.param(1e-9, marks=pytest.mark.slow), pytest.param(1.0, marks=pytest.mark.slow)]
)
def test_logits_of_any_size_are_compared(scale: float, tmp_path: Path) -> None:
    network, path = _Head(scale), tmp_path / "network.onnx"
    export_onnx(network, path, resolution=8)
    check = check_onnx(path, network, resolution=8)
    assert 0 <= check.difference <= TOLERANCE
    assert check.is_rounding


def test_a_network_that_float32_computes_badly_is_compared_with_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = _IllConditioned(), tmp_path / "network.onnx"
    export_onnx(network, path, resolution=8)
    check = check_onnx(path, network, resolution=8)
    # The difference that float32 makes, as arithmetic has it: 2^-24 of 3000 times a weight.
    assert TOLERANCE < check.torch_difference < 0.1
    assert check.is_rounding
    # Another network's weights are no rounding, however badly they are computed.
    assert not check_onnx(path, _IllConditioned(), resolution=8).is_rounding


def test_a_network_of_old_weight_norm_is_compared_with_float64_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = [_IllConditioned(), _IllConditioned()]
    for network in networks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(network.head)
    path = tmp_path / "network.onnx"
    export_onnx(networks[0], path, resolution=8)
    check = check_onnx(path, networks[0], resolution=8)
    # Compared with its own logits in float32, torch's difference would be 0.
    assert check.torch_difference > TOLERANCE
    assert check.is_rounding
    assert not check_onnx(path, networks[1], resolution=8).is_rounding


def test_differences_beyond_those_of_torch_are_no_rounding() -> None:
    assert Check(18, 9e-3, 1e-3).is_rounding
    assert not Check(18, 2e-2, 1e-3).is_rounding
    assert not Check(18, 0.5, 0.4).is_rounding
    assert not Check(18, float("nan"), 0.0).is_rounding
    assert not Check(18, 1e-2, float("nan")).is_rounding
    assert Check(18, 9e-5, 0.0).is_rounding


def _export_and_compare(network: nn.Module, path: Path, point: DesignPoint | None = None) -> None:
    with torch.no_grad():
        # So that the statistics of the normalisations matter.
        network(torch.randn(8, 3, 32, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(network, path, resolution=32, point=point)
    session = open_session(path, "cpu")
    for batch in (1, 7):
        images = torch.randn(batch, 3, 32, 32)
        with torch.inference_mode():
            expected = network(images)
        (logits,) = session.run(None, {"images": images.numpy()})
        assert (torch.from_numpy(logits) - expected).abs().max() / expected.abs().max() <= 1e-4
