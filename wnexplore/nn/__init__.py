"""The layers, one method per file. Layers that several rooms build on are exported here."""

from wnexplore.nn.activations import ActivationVectors as ActivationVectors
from wnexplore.nn.condconv import CondConv2d as CondConv2d
from wnexplore.nn.context import Context as Context
from wnexplore.nn.gate import Gate as Gate
from wnexplore.nn.generated import GeneratedConv2d as GeneratedConv2d
from wnexplore.nn.generated import KernelSum as KernelSum
from wnexplore.nn.generated import MethodConv2d as MethodConv2d
from wnexplore.nn.generated import formulation_set as formulation_set
from wnexplore.nn.normalisation import normalised as normalised
from wnexplore.nn.squeeze_excite import SqueezeExcite as SqueezeExcite
from wnexplore.nn.weightnet import WeightNetConv2d as WeightNetConv2d
