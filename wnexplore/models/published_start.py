"""The starting parameters of the WeightNet authors' code.

Source: `_initialize_weights` of shufflenet_v2.py in https://github.com/megvii-model/WeightNet (MegEngine),
the code of Ma, Zhang, Huang, Sun, WeightNet, ECCV 2020.
"""

from __future__ import annotations

from torch import Tensor, nn

from wnexplore.models.mobilenet_v3 import HardSqueezeExcite
from wnexplore.nn import Gate, MethodConv2d
from wnexplore.nn.parameters import parameter
from wnexplore.nn.weightnet import GroupedLinear

_SMALL_STD = 0.01
_NORM_BIAS = 0.0001
_CLASSIFIERS = ("fc", "classifier")
"""The modules of a network that hold its last linear layers."""


def start_as_published(network: nn.Module) -> None:
    """Draw the parameters of `network`, which `build` made, anew as the authors' code does, in place.

    A weight is normal with standard deviation 1/shape[1], whatever its fan-in, and batch normalisation makes
    up for the scale. The shapes are MegEngine's (`Conv2d._infer_weight_shape` of megengine/module/conv.py):
    (out, in, kh, kw), but with more than one group (groups, out/groups, in/groups, kh, kw). Fully-connected
    layers within a block are 1x1 convolutions there. So the standard deviation is

    - of `reduce` 1/C_in, and of fc1 1/R;
    - of fc2 G/F, F = C_in/g·kh·kw: it has G·C_out groups, of F/G outputs each. A depthwise layer (M/G, 1) has
      1/(kh·kw). With one group in all (G = 1/C_out) the weight has four dimensions: 1/lambda;
    - of an ordinary convolution 1/C_in, of a grouped one g/C_out, hence 1 if it is depthwise;
    - of the first convolution and of the classifier 0.01.

    Scales of batch normalisation are 1 and its biases 0.0001; other biases keep their default, 0. The PyTorch
    port (https://github.com/DequanWang/weightnet.pytorch) applies the same rule to PyTorch's shapes,
    (out, in/groups, kh, kw), and so starts fc2 with 1/lambda.

    What that code doesn't have follows by the same rule:

    - ResNet and MobileNet, whose last normalisations start at 1 too; both linear layers of MobileNetV3's
      classifier with 0.01.
    - condconv, dynamic and odconv: the weight is that of a generator with one group, 1/experts; routing and
      attention layers have 1/in. sk: its convolutions and linear layers as any others.
    - se, also MobileNetV3's own, cbam and gc: 0.01 in all convolutions and linear layers, as the same authors
      start squeeze-and-excitation in ShuffleNetV2+ (https://github.com/megvii-model/ShuffleNet-Series).

    These keep the default start, as the rule says nothing of them: the one-dimensional convolution of eca,
    the layer normalisation of gc, and the bias of fc1 with activation tanh or identity, without which the
    kernels would start near 0.
    """
    gates = (module for module in network.modules() if isinstance(module, Gate | HardSqueezeExcite))
    small = {id(part) for gate in gates for part in gate.modules()}
    ends = (child for name, child in network.named_children() if name in _CLASSIFIERS)
    small |= {id(part) for end in ends for part in end.modules()}
    small.add(id(next(module for module in network.modules() if isinstance(module, nn.Conv2d))))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(parameter(module, "weight"))
            nn.init.constant_(parameter(module, "bias"), _NORM_BIAS)
            continue
        found = _weight(module)
        if found is not None:
            weight, second = found
            nn.init.normal_(weight, std=_SMALL_STD if id(module) in small else 1 / second)


def _weight(module: nn.Module) -> tuple[Tensor, int] | None:
    """The weight of a layer and its second dimension in the authors' form; None if the rule has none."""
    match module:
        case nn.Conv2d():
            grouped = module.groups > 1
            return module.weight, module.out_channels // module.groups if grouped else module.in_channels
        case nn.Linear():
            return module.weight, module.in_features
        case GroupedLinear():
            outputs = module.weight.shape[0] // module.groups
            return module.weight, outputs if module.groups > 1 else module.inputs_per_group
        case MethodConv2d() if isinstance(module._parameters.get("weight"), nn.Parameter):
            # (experts, C_out, C_in/g, kh, kw): a generator's, from `experts` inputs in one group.
            experts = parameter(module, "weight")
            return experts, experts.shape[0]
    return None
