import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import wnexplore
from wnexplore.design.methods import METHODS
from wnexplore.measure import runtimes
from wnexplore.measure.runtimes import Runtime, Step, make_pass


class _Net(nn.Module):
    """Notes how it is called."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 5)
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_inference_mode_enabled()))
        features: Tensor = self.norm(self.convolution(images)).mean((2, 3))
        logits: Tensor = self.classifier(features)
        return logits


def _images() -> Tensor:
    return torch.randn(4, 3, 8, 8)


def test_inference_is_a_forward_pass_in_evaluation_and_inference_mode() -> None:
    network, images = _Net(), _images()
    work = make_pass(network, images, "inference", "eager")
    output = work.run()
    assert network.calls == [(False, True)]
    with torch.no_grad():
        torch.testing.assert_close(output, network(images))
    assert work.prepared_s is None
    tensors = {t.data_ptr() for t in work.held()}
    assert tensors == {t.data_ptr() for t in (*network.parameters(), *network.buffers(), images)}


def test_training_is_a_whole_step_that_leaves_the_weights_as_they_are() -> None:
    network, images = _Net(), _images()
    before = [p.detach().clone() for p in network.parameters()]
    work = make_pass(network, images, "train", "eager")
    network.calls.clear()
    work.run()
    assert network.calls == [(True, False)]
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients if g is not gradients[1])
    for old, new in zip(before, network.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0)
    held = {t.data_ptr() for t in work.held()}
    assert {g.data_ptr() for g in gradients if g is not None} <= held
    # Weights, gradients and momentum; buffers; images and labels.
    assert len(held) == 3 * len(before) + len(list(network.buffers())) + 2


def test_the_same_gradients_as_a_step_written_out() -> None:
    network, images = _Net(), _images()
    torch.manual_seed(0)
    work = make_pass(network, images, "train", "eager")
    work.run()
    torch.manual_seed(0)
    labels = torch.randint(5, (4,))
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    nn.functional.cross_entropy(network(images), labels).backward()
    for ours, plain in zip(gradients, (p.grad for p in network.parameters()), strict=True):
        torch.testing.assert_close(ours, plain)


def test_the_memory_of_a_pass_that_is_recorded_is_counted_before_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    class Recording(Runtime):
        prepares = True
        in_torch_memory = False

        def begin(self, step: Step) -> None:
            order.append("begin")
            step()

        def recorded_peak(self, step: Step, held: Callable[[], list[Tensor]]) -> int | None:
            order.append("count")
            time.sleep(0.2)
            return len(held())

        def prepare(self, step: Step) -> Step:
            order.append("record")
            return step

    monkeypatch.setitem(runtimes.RUNTIMES, "recording", Recording())
    network = _Net()
    work = make_pass(network, _images(), "train", "recording")
    assert order == ["begin", "count", "record"]
    weights = len(list(network.parameters()))
    # Gradients and momenta of the step before, buffers, images and labels.
    assert work.recorded_peak == 3 * weights + len(list(network.buffers())) + 2
    assert work.step is None
    assert work.prepared_s is not None
    assert work.prepared_s < 0.2


@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_in_both_modes(method: str, mode: str) -> None:
    network = wnexplore.build(backbone="shufflenet_v2_x0_5", method=method, stem="small", num_classes=10)
    work = make_pass(network, torch.randn(2, 3, 32, 32), mode, "eager")
    result = work.run()
    assert isinstance(result, Tensor)
    assert bool(result.isfinite().all())


@pytest.mark.slow
def test_compiled_networks_give_the_same_and_keep_what_they_compiled_to_themselves() -> None:
    from torch._dynamo.utils import counters

    images = _images()
    # More of one class than torch would keep compiled for one piece of code.
    networks = [_Silent(width) for width in range(4, 16)]
    counters.clear()
    works = [make_pass(network, images, "inference", "compile") for network in networks]
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == len(networks)
    for _ in range(2):
        for network, work in zip(networks, works, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(work.run(), network(images))
    assert counters["stats"]["unique_graphs"] == graphs, "none was compiled again"
    assert all(work.prepared_s is not None and work.prepared_s > 0 for work in works)


@pytest.mark.slow
def test_a_network_that_can_not_be_one_graph_is_an_error_and_not_timed_in_eager_mode() -> None:
    from torch._dynamo.exc import TorchDynamoException

    with pytest.raises(TorchDynamoException):
        make_pass(_Broken(), _images(), "inference", "compile")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "train"])
def test_a_weightnet_can_be_compiled(mode: str) -> None:
    torch.manual_seed(0)
    network = _OneLayer()
    images = torch.randn(2, 3, 8, 8)
    compiled = make_pass(network, images, mode, "compile").run()
    torch.manual_seed(1)
    assert isinstance(compiled, Tensor)
    if mode == "inference":
        with torch.no_grad():
            torch.testing.assert_close(compiled, network(images), rtol=1e-4, atol=1e-5)


def test_onnxruntime_gives_the_same_in_memory_that_torch_knows_nothing_of() -> None:
    network, images = _Silent(), _images()
    work = make_pass(network, images, "inference", "onnxruntime")
    for _ in range(2):
        logits = work.run()
        with torch.no_grad():
            torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)
        images.normal_()
    assert work.step is None
    assert work.prepared_s is not None
    assert work.prepared_s > 0


class _Silent(_Net):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(self.convolution(images)).mean((2, 3)))
        return logits


class _Broken(_Net):
    def forward(self, images: Tensor) -> Tensor:
        if images.sum().item() > 0:
            print("positive")
        return super().forward(images)


class _OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.layer = wnexplore.WeightNetConv2d(8, 8, kernel_size=3, M=2, G=2)
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.layer(self.stem(images)).mean((2, 3)))
        return logits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mode", ["inference", "train"])
def test_a_replayed_graph_gives_the_same(mode: str) -> None:
    network = wnexplore.build(backbone="shufflenet_v2_x0_5", method="weightnet", stem="small", num_classes=10)
    images = torch.randn(4, 3, 32, 32, device="cuda")
    work = make_pass(network.cuda(), images, mode, "cudagraph")
    work.run()
    torch.cuda.synchronize()
    assert work.prepared_s is not None
    assert all(bool(p.isfinite().all()) for p in network.parameters())
