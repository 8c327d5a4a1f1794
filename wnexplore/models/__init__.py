"""The networks: backbones whose convolutions a method makes, and `build`, which makes one of a point."""

from wnexplore.models.build import build as build
from wnexplore.models.convert import Conversion as Conversion
from wnexplore.models.convert import Where as Where
from wnexplore.models.convert import convert as convert
from wnexplore.models.methods import CondConvMethod as CondConvMethod
from wnexplore.models.methods import Method as Method
from wnexplore.models.methods import PlainMethod as PlainMethod
from wnexplore.models.methods import SqueezeExciteMethod as SqueezeExciteMethod
from wnexplore.models.methods import WeightNetMethod as WeightNetMethod
from wnexplore.models.published_weights import load_published_state_dict as load_published_state_dict
from wnexplore.models.resnet import ResNet as ResNet
from wnexplore.models.shufflenet_v2 import ShuffleNetV2 as ShuffleNetV2
