"""The closed form against the count of the network that is built, over families of networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wnexplore.design.counts import count
from wnexplore.design.point import DesignPoint
from wnexplore.measure.complexity import count_products
from wnexplore.models.conv_calls import layout
from wnexplore.models.convert import Where, convert_seen
from wnexplore.models.external import load, model_skeleton
from wnexplore.models.method_layers import method_of
from wnexplore.models.unconvertible import why_left

FAMILIES = {
    "torchvision": """
        alexnet:64 convnext_tiny:64 densenet121:64 efficientnet_b0:64 efficientnet_v2_s:64 googlenet:64
        inception_v3:96 maxvit_t:224 mnasnet0_5:64 mobilenet_v2:64 mobilenet_v3_small:64 regnet_x_400mf:64
        regnet_y_400mf:64 resnet18:64 resnet50:64 resnext50_32x4d:64 shufflenet_v2_x0_5:64 squeezenet1_0:64
        swin_t:64 swin_v2_t:64 vgg11_bn:64 vit_b_16:224 wide_resnet50_2:64
    """,
    "timm": """
        bat_resnext26ts:256 beit_base_patch16_224:224 botnet26t_256:256 caformer_s18:64 cait_xxs24_224:224
        coat_tiny:224 coatnet_nano_rw_224:224 convit_tiny:224 convmixer_768_32:64 convnext_atto:64
        convnextv2_atto:64 crossvit_tiny_240:240 cs3darknet_s:64 cspresnet50:64 darknet53:64 davit_tiny:224
        deit_tiny_patch16_224:224 densenet121:64 dla34:64 dm_nfnet_f0:64 dpn48b:64 eca_botnext26ts_256:256
        edgenext_small:64
        efficientformer_l1:224 efficientformerv2_s0:224 efficientnet_b0:64
        efficientvit_b0:64 efficientvit_m0:224 eva02_tiny_patch14_336:336 fastvit_t8:64 focalnet_tiny_srf:64
        fbnetc_100:64 gcresnet33ts:64 gernet_s:64 ghostnet_050:64 gmixer_24_224:224 gmlp_ti16_224:224
        hardcorenas_a:64 hgnetv2_b0:64 hrnet_w18_small:64 inception_next_tiny:64 lambda_resnet26t:256
        lcnet_035:64
        sequencer2d_s:224 vit_small_patch14_dinov2:518 vit_tiny_patch16_224:224 swinv2_cr_tiny_ns_224:224
        xcit_nano_12_p16_224:224
    """,
}
"""Library -> its networks, one of a family each, and the resolutions at which they are counted."""

NETWORKS = [
    (f"{library}:{network.partition(':')[0]}", int(network.partition(":")[2]))
    for library, names in FAMILIES.items()
    for network in names.split()
]


def _without_numbers(name: str) -> nn.Module:
    """On the meta device where the network can be made there, which takes no time."""
    try:
        with torch.device("meta"):
            return load(name, 10)
    except Exception:
        return load(name, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "resolution"), NETWORKS)
def test_the_closed_form_equals_the_count_of_the_network_built(name: str, resolution: int) -> None:
    model = _without_numbers(name)
    found = layout(model, known_size=resolution)
    left = why_left(model, found, resolution=resolution)
    skeleton = model_skeleton(model, resolution, found, left)
    plain = DesignPoint.of(name, resolution=resolution, num_classes=10)
    weightnet = DesignPoint.of(name, "weightnet", 2, 1, resolution=resolution, num_classes=10)
    assert skeleton.uncounted == ()
    for point in (plain, weightnet):
        if point is weightnet:
            convert_seen(model, method_of(point), Where(), found, left)
        built = sum(p.numel() for p in model.parameters()), count_products(model, resolution).total
        assert count(point, skeleton) == built


@pytest.mark.slow
def test_recurrent_networks_count_every_step_of_their_layers() -> None:
    """Of sequencer2d_s, 8.4 G in its paper, 41 % is in LSTMs."""
    model = load("timm:sequencer2d_s", 1000)
    expected = 0

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        nonlocal expected
        if isinstance(module, nn.LSTM):
            weights = sum(p.numel() for p in module.parameters() if p.dim() == 2)
            expected += inputs[0].shape[:2].numel() * weights
        elif isinstance(output, torch.Tensor) and isinstance(module, nn.Linear | nn.Conv2d):
            expected += output.numel() * (module.weight.numel() // module.weight.shape[0])

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert count_products(model, 224).total == expected == 8_334_007_296
