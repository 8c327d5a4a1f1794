"""The layers, one method a file."""

from wnexplore.nn.activations import ActivationVectors as ActivationVectors
from wnexplore.nn.cbam import ConvBlockAttention as ConvBlockAttention
from wnexplore.nn.channel_attention import EfficientChannelAttention as EfficientChannelAttention
from wnexplore.nn.condconv import CondConv2d as CondConv2d
from wnexplore.nn.context import Context as Context
from wnexplore.nn.dynamic import DynamicConv2d as DynamicConv2d
from wnexplore.nn.gate import Gate as Gate
from wnexplore.nn.generated import GeneratedConv2d as GeneratedConv2d
from wnexplore.nn.generated import formulation_set as formulation_set
from wnexplore.nn.global_context import GlobalContext as GlobalContext
from wnexplore.nn.normalisation import normalised as normalised
from wnexplore.nn.selective_kernel import SelectiveKernelConv2d as SelectiveKernelConv2d
from wnexplore.nn.squeeze_excite import SqueezeExcite as SqueezeExcite
from wnexplore.nn.weightnet import WeightNetConv2d as WeightNetConv2d
