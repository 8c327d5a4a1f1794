"""What a training step keeps of each layer from forward to backward."""

from collections import defaultdict
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import wnexplore
from tests.examples import rest_slow
from wnexplore.nn import GeneratedConv2d, formulation_set


@pytest.mark.parametrize(("M", "G"), rest_slow([(1, 1), (2, 2), (4, 1), (8, 2)], (8, 2)))
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "resnet18"])
def test_auto_keeps_no_more_than_the_published_formulation(backbone: str, M: int, G: int) -> None:
    network = wnexplore.build(backbone=backbone, method="weightnet", M=M, G=G).train()
    images = torch.randn(2, 3, 224, 224)
    ours = kept(network, images)
    with formulation_set(network, "published"):
        published = kept(network, images)
    assert ours.keys() == published.keys()
    assert all(ours[name] <= published[name] for name in ours)
    assert sum(ours.values()) <= sum(published.values())


def kept(network: nn.Module, images: Tensor) -> dict[str, int]:
    """Bytes by layer with generated kernels, parameters apart and each piece of memory counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found: dict[str, dict[int, int]] = defaultdict(dict)
    inside: list[str] = []
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, GeneratedConv2d):
            handles.append(module.register_forward_pre_hook(partial(_enter, inside, name)))
            handles.append(module.register_forward_hook(lambda *_: inside.clear()))

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if inside and storage.data_ptr() not in weights:
            found[inside[0]][storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(images)
    for handle in handles:
        handle.remove()
    # While the output lives, so does all that was kept: no address was used twice.
    assert output.requires_grad
    return {name: sum(storages.values()) for name, storages in found.items()}


def _enter(inside: list[str], name: str, *_: object) -> None:
    inside.append(name)
