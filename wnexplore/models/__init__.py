"""The networks: backbones whose convolutions a method makes, and `build`, which builds a design point."""

from wnexplore.models.build import build as build
from wnexplore.models.convert import Conversion as Conversion
from wnexplore.models.convert import Where as Where
from wnexplore.models.convert import convert as convert
from wnexplore.models.method_layers import Method as Method
from wnexplore.models.method_layers import PlainMethod as PlainMethod
from wnexplore.models.method_layers import method_of as method_of
from wnexplore.models.published_weights import load_published_state_dict as load_published_state_dict
from wnexplore.models.resnet import ResNet as ResNet
from wnexplore.models.shufflenet_v2 import ShuffleNetV2 as ShuffleNetV2
