"""The layers, one method a file."""

from wnexplore.nn.condconv import CondConv2d as CondConv2d
from wnexplore.nn.context import Context as Context
from wnexplore.nn.functional import conv2d_per_sample as conv2d_per_sample
from wnexplore.nn.functional import generate_kernels as generate_kernels
from wnexplore.nn.generated import GeneratedConv2d as GeneratedConv2d
from wnexplore.nn.squeeze_excite import SqueezeExcite as SqueezeExcite
from wnexplore.nn.weightnet import WeightNetConv2d as WeightNetConv2d
