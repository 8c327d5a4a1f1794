"""The axes of a design space. Each one is declared here, once.

Whatever lists axes reads `DESIGN_AXES`: design points, sweep files, the command line, records' keys, columns,
tables and captions. A new axis is an entry here, its type in `LayerAxes` or `NetworkAxes` and in `GivenAxes`
below, and the methods that read it, which name it in their own entries (`wnexplore.design.methods`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from wnexplore.design.methods import METHODS, methods_with
from wnexplore.errors import InputError, shown, unknown

if TYPE_CHECKING:
    from wnexplore.design.stages import Stages
    from wnexplore.design.where import Kind

STEMS = {"imagenet": 224, "small": 32}
"""Stem -> the resolution it is made for, in pixels."""

ACTIVATIONS = ("sigmoid", "hard_sigmoid", "tanh", "softmax", "identity")
"""What may follow fc1: sigmoid is published; softmax runs over the lambda inputs of one group."""

DEPTHWISE = ("published", "plain", "full")
"""What a depthwise convolution gets: (M/G, 1) as in the published code, no generator, or (M, G) itself."""


@dataclass(frozen=True, kw_only=True)
class NetworkAxes:
    """What decides on a plain network."""

    backbone: str
    stem: str
    resolution: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class LayerAxes:
    """What layers of methods read, beside M and G; None where a method doesn't."""

    experts: int | None = None
    temperature: int | None = None
    reduction: int | None = None
    activation: str | None = None
    depthwise: str | None = None
    """What a depthwise convolution gets, one of `DEPTHWISE`."""


class GivenAxes(TypedDict, total=False):
    """The axes of a point beside backbone, method, M and G, as a person writes them; None: as if left out."""

    stages: Stages | None
    experts: int | None
    temperature: int | None
    stem: str
    resolution: int | None
    num_classes: int
    reduction: int | None
    activation: str | None
    depthwise: str | None


@dataclass(frozen=True)
class Whole:
    """Whole numbers from 1 to `most`: what no machine could hold is refused before anything is made."""

    most: int = 10**9

    def check(self, name: str, value: object) -> None:
        """Raise `InputError` naming `name` if `value` is none of these."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is '{shown(value)}': expected a whole number of at least 1")
        if value > self.most:
            raise InputError(f"{name} is {shown(value)}: expected at most {self.most:,}")


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: Collection[str]

    def check(self, name: str, value: object) -> None:
        """Raise `InputError` naming `name` if `value` is none of these."""
        if not isinstance(value, str) or value not in self.names:
            raise unknown(name, value, self.names)


Values = Whole | Choice | Literal["backbone", "multiplier", "stages", "width", "switch"]
"""What an axis may be; those with a word have their own parsers, in files of these names."""

Part = Literal["network", "method", "layer", "grid"]
"""What an axis is of: the plain network, the choice of the method, what methods read, or sweeps alone."""


@dataclass(frozen=True)
class Axis:
    """One axis of design points, or of the grids of sweeps alone."""

    name: str
    part: Part
    values: Values
    default: Any = None
    """What a point has where it is left out (None: what other axes say) and the method reads it."""
    meaning: str = ""
    """What a sweep file's reference says of it."""
    help: str = ""
    """What the option of one point says; `said` fills in {methods}, {one_of}, {all_of} and {list}."""
    help_many: str = ""
    """What the option of many points says."""
    heading: str = ""
    """What heads its column in a table."""
    title: str = ""
    """What figures and the reference call it; its heading if left out."""
    unit: str = ""
    phrase: str = "{}"
    """How a caption says its value."""
    usual: Any = None
    """The value that goes without saying, and that records from before there was the axis had."""
    early: bool = False
    """Whether the first records had it: it counts in their keys whatever it is, and not only if unusual."""
    always: bool = False
    """Whether a point's name says it even if it is as by default."""
    key: str = ""
    """What a sweep file calls it, if not by its name."""
    grid: tuple[Any, ...] | None = ()
    """What a sweep has where it is left out: () for the default alone, None for what other axes say."""

    @property
    def of_point(self) -> bool:
        """Whether a design point has it."""
        return self.part != "grid"

    @property
    def sweep_key(self) -> str:
        """What a sweep file calls it."""
        return self.key or self.name

    @property
    def kind(self) -> Kind:
        """What its column holds."""
        if isinstance(self.values, Whole):
            return "whole"
        return "multiplier" if self.values == "multiplier" else "text"

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be chosen from; () where that is no list of names."""
        return tuple(self.values.names) if isinstance(self.values, Choice) else ()

    def check(self, value: object) -> None:
        """Raise `InputError` if `value` can't be; of what has a parser of its own anything may be."""
        if isinstance(self.values, (Whole, Choice)):
            self.values.check(self.name, value)

    def said(self, many: bool = False) -> str:
        """What its option says, for one point or for many."""
        text = self.help_many if many else self.help
        names = self.names or ("",)
        return text.format(
            methods=listed(methods_with(self.name) or ("",)),
            one_of=listed(names, "or"),
            all_of=listed(names),
            list=",".join(names),
        )


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names as a sentence has them: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


_EVERY = (
    Axis(
        "backbone",
        "network",
        "backbone",
        meaning="Registered ones, families (`width` says which), or networks of your own.",
        help="Backbone, such as shufflenet_v2_x0_5; timm:NAME, torchvision:NAME or file.py:function.",
        help_many="Backbones, comma-separated; timm:NAME, torchvision:NAME, file.py:function.",
        heading="backbone",
        title="Backbone",
        early=True,
        key="backbones",
        grid=("shufflenet_v2_x0_5",),
    ),
    Axis(
        "width",
        "grid",
        "width",
        meaning='Of those backbones that are families ("shufflenet_v2"): their width multipliers.',
        help_many="Widths of families such as shufflenet_v2.",
        grid=None,
    ),
    Axis(
        "method",
        "method",
        Choice(METHODS),
        default="plain",
        meaning="What makes or scales the kernels; each reads only its own axes.",
        help="{one_of}.",
        help_many="Methods, comma-separated: {all_of}.",
        heading="method",
        title="Method",
        early=True,
        key="methods",
        grid=("plain", "weightnet"),
    ),
    Axis(
        "M",
        "layer",
        "multiplier",
        default=Fraction(2),
        meaning="The generator's inputs are M times the output channels: 2, 1/2, 4/C (four in all), {2: 1,"
        " 3: 2}.",
        help="M of {methods}: 2, 1/48, 4/C or 2:1+3:2+4:8; 2 if left out.",
        help_many="Values of M: 1,2,4 or 1/2, 4/C, or by stage 2:1+3:2+4:8.",
        heading="M",
        phrase="M = {}",
        early=True,
        always=True,
    ),
    Axis(
        "G",
        "layer",
        "multiplier",
        default=Fraction(2),
        meaning="Its groups are G times the output channels, each of lambda = M/G inputs; written as M is.",
        help="G of {methods}, as M; 2 if left out.",
        help_many="Values of G, as of M.",
        heading="G",
        phrase="G = {}",
        early=True,
        always=True,
    ),
    Axis(
        "per_stage",
        "grid",
        "switch",
        default=False,
        meaning="Whether M and G are crossed in each stage by themselves.",
        help_many="Cross M and G in each stage by itself.",
    ),
    Axis(
        "stages",
        "layer",
        "stages",
        meaning='Each one choice of stages that get the method, "3+4" or [3, 4]; a list of numbers is one of'
        " them, and null stands for all stages.",
        help="Stages with the method: 3+4; all if left out.",
        help_many="Stages with the method: 3+4,4 for two choices.",
        heading="stages",
        title="Stages",
        phrase="stages {}",
        always=True,
    ),
    Axis(
        "experts",
        "layer",
        Whole(10_000),
        default=4,
        meaning="Kernels that a layer mixes.",
        help="Experts of {methods}.",
        help_many="Numbers of experts of {methods}.",
        heading="experts",
        title="Experts",
        phrase="{} experts",
        early=True,
        always=True,
    ),
    Axis(
        "temperature",
        "layer",
        Whole(),
        default=30,
        meaning="What the logits of an attention over kernels are divided by.",
        help="Temperature of the attention of {methods}.",
        help_many="Temperatures of {methods}.",
        heading="temp.",
        title="Temperature",
        phrase="temperature {}",
    ),
    Axis(
        "stem",
        "network",
        Choice(STEMS),
        default="imagenet",
        meaning="imagenet: a fourth of the size; small: the size that it is given, for 32x32 images.",
        help="imagenet, or small for 32x32 images.",
        help_many="Stems: imagenet, small (for 32x32 images).",
        heading="stem",
        title="Stem",
        phrase="{} stem",
        early=True,
    ),
    Axis(
        "resolution",
        "network",
        Whole(10_000_000),
        meaning="Pixels of an image's side; left out: what the stem is made for.",
        help="Image size in pixels.",
        help_many="Image sizes in pixels.",
        heading="res.",
        title="Resolution",
        unit="px",
        phrase="{} px",
        early=True,
        grid=None,
    ),
    Axis(
        "num_classes",
        "network",
        Whole(10_000_000),
        default=1000,
        meaning="Of what is counted and timed; a training has its data's.",
        help="Number of classes.",
        help_many="Numbers of classes.",
        heading="classes",
        title="Classes",
        phrase="{} classes",
        early=True,
    ),
    Axis(
        "reduction",
        "layer",
        Whole(),
        default=16,
        meaning="Features of a method's context: max(16, channels / reduction).",
        help="Reduction of the context.",
        help_many="Reductions of the context.",
        heading="red.",
        title="Reduction",
        phrase="reduction {}",
        early=True,
    ),
    Axis(
        "activation",
        "layer",
        Choice(ACTIVATIONS),
        default="sigmoid",
        meaning="What follows fc1; softmax runs over the lambda inputs of one group.",
        help="{one_of}.",
        help_many="Activations: {list}.",
        heading="activation",
        title="Activation",
        early=True,
    ),
    Axis(
        "depthwise",
        "layer",
        Choice(DEPTHWISE),
        default="published",
        meaning="What depthwise layers get: (M/G, 1), no generator, or (M, G) itself.",
        help="Depthwise layers of {methods}: published (M/G, 1), plain or full.",
        help_many="Depthwise layers of {methods}: {list}.",
        heading="depthwise",
        title="Depthwise layers",
        phrase="depthwise {}",
        usual="published",
    ),
)

DESIGN_AXES: dict[str, Axis] = {axis.name: axis for axis in _EVERY}
"""Every axis by its name, in the order in which sweep files, options, tables and exports have them."""

POINT_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.of_point)
"""The names of those that a design point has."""

NETWORK_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.part == "network")
"""Those of its plain network."""

LAYER_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.part == "layer")
"""Those that methods read: each its own, named in its entry."""
