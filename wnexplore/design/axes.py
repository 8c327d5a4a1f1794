"""The axes: of a design space, and of how a latency is measured. Each one is declared here, once.

Whatever lists axes reads `DESIGN_AXES` and `TIMING_AXES`: design points and protocols, sweep files, the
command line, records' keys, columns, tables and captions. A new axis of designs is an entry here, its type in
`wnexplore.design.axis_types`, and the methods that read it, which name it in their entries
(`wnexplore.design.methods`). A new axis of latencies is an entry here, its type there, and what measures by
it (`wnexplore.measure.latency`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from wnexplore.design.methods import METHODS, methods_with
from wnexplore.design.vision_tasks import TASKS
from wnexplore.errors import InputError, shown, unknown

if TYPE_CHECKING:
    from wnexplore.design.where import Kind

ADAPTIVE = "adaptive"
"""How torch's threads wait by default: spinning, or sleeping while other programs need the cores."""

STEMS = {"imagenet": 224, "small": 32}
"""Stem -> its default resolution, in pixels."""

DETECTION_RESOLUTION, PYRAMID_CHANNELS = 800, 256
"""Of a detector, by default: Lin et al., ICCV 2017, sections 4 and 5."""

LONGEST = 1333 / 800
"""The longer side of an image to detect in over the shorter one at most, as is usual for COCO."""

ACTIVATIONS = ("sigmoid", "hard_sigmoid", "tanh", "softmax", "identity")
"""Activation functions after fc1: sigmoid is published; softmax runs over the lambda inputs of one group."""

DEPTHWISE = ("published", "plain", "full")
"""Depthwise convolutions: (M/G, 1) as in the published code, no generator, or (M, G)."""


@dataclass(frozen=True)
class Whole:
    """Integers from 1 to `most`: impossible sizes are refused before anything is allocated."""

    most: int = 10**9

    def check(self, name: str, value: object) -> None:
        """Raise `InputError` naming `name` if `value` is not allowed."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is '{shown(value)}': expected a whole number of at least 1")
        if value > self.most:
            raise InputError(f"{name} is {shown(value)}: expected at most {self.most:,}")


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: Collection[str]

    def check(self, name: str, value: object) -> None:
        """Raise `InputError` naming `name` if `value` is not allowed."""
        if not isinstance(value, str) or value not in self.names:
            raise unknown(name, value, self.names)


@dataclass(frozen=True)
class Number:
    """Finite numbers above 0, and below `below` if there is such."""

    below: float | None = None


Values = Whole | Number | Choice | Literal["backbone", "multiplier", "stages", "width", "switch", "found"]
"""The values of an axis; a word names the parser, in a file of that name ("found": by the machine)."""

Part = Literal["network", "method", "layer", "grid", "timing", "once", "machine"]
"""What an axis belongs to: the plain network, the choice of the method, the methods' layers, or only sweeps;
in a latency's protocol the crossed settings, those given once, or those of the machine."""


@dataclass(frozen=True)
class Axis:
    """One axis of design points, of sweeps' grids only, or of the protocols of latencies."""

    name: str
    part: Part
    values: Values
    default: Any = None
    """The default of a point whose method reads the axis (None: it depends on other axes)."""
    meaning: str = ""
    """Its description in the reference of sweep files."""
    help: str = ""
    """Help of the option for one point; `said` fills in {methods}, {one_of}, {all_of} and {list}."""
    help_many: str = ""
    """Help of the option for several points, or of a sweep; by default that for one point."""
    heading: str = ""
    """Heading of its column in a table."""
    title: str = ""
    """Its name in figures and in the reference; by default its heading."""
    unit: str = ""
    phrase: str = "{}"
    """Format of its value in captions."""
    usual: Any = None
    """The usual value, which is omitted in captions and which records from before the axis had."""
    early: bool = False
    """Whether the first records had it: then it is always part of a record's key, not only if unusual."""
    always: bool = False
    """Whether the name of a point or of a measurement includes it even at its default."""
    key: str = ""
    """Its key in sweep files, if not its name."""
    grid: tuple[Any, ...] | None = ()
    """The default values in a sweep: () for the point's default, None if it depends on other axes."""

    @property
    def of_point(self) -> bool:
        """Whether a design point has it."""
        return self.part in ("network", "method", "layer")

    @property
    def sweep_key(self) -> str:
        """Its key in sweep files."""
        return self.key or self.name

    @property
    def listed(self) -> bool:
        """Whether sweeps have a list of its values."""
        return self.part not in ("once", "machine") and self.values != "switch"

    @property
    def kind(self) -> Kind:
        """The kind of its column."""
        if isinstance(self.values, (Whole, Number)):
            return "whole" if isinstance(self.values, Whole) else "number"
        return "multiplier" if self.values == "multiplier" else "text"

    @property
    def names(self) -> tuple[str, ...]:
        """The names to choose from; () if its values are not names."""
        return tuple(self.values.names) if isinstance(self.values, Choice) else ()

    def check(self, value: object) -> None:
        """Raise `InputError` for an invalid `value`; axes with their own parser are not checked."""
        if isinstance(self.values, (Whole, Choice)):
            self.values.check(self.name, value)

    def said(self, many: bool = False) -> str:
        """The help of its option, for one point or several."""
        text = (self.help_many if many else "") or self.help
        names = self.names or ("",)
        return text.format(
            methods=listed(methods_with(self.name) or ("",)),
            one_of=listed(names, "or"),
            all_of=listed(names),
            list=",".join(names),
        )


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names joined for a sentence: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


_DESIGN = (
    Axis(
        "backbone",
        "network",
        "backbone",
        meaning="Registered ones, families (see `width`), or external backbones.",
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
        meaning="Whether M and G are crossed independently in each stage.",
        help_many="Cross M and G independently in each stage.",
    ),
    Axis(
        "stages",
        "layer",
        "stages",
        meaning='Each one choice of stages that get the method, "3+4" or [3, 4]; a list of numbers is one of'
        " them, and null stands for all stages of the backbone. A detector's pyramid and head are two more:"
        ' "all+head", "pyramid+head".',
        help="Stages with the method: 3+4, of a detector all+pyramid+head; the backbone's if left out.",
        help_many="Stages with the method: 3+4,4 for two choices; of detectors all+head.",
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
        meaning="For counts and latencies; a training has the number of its data set. Left out: 1000, of a"
        " detector 80.",
        help="Number of classes; 1000, of a detector 80, if left out.",
        help_many="Numbers of classes.",
        heading="classes",
        title="Classes",
        phrase="{} classes",
        early=True,
        grid=None,
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
    Axis(
        "task",
        "network",
        Choice(TASKS),
        default="classification",
        meaning="detection: RetinaNet on the backbone's feature maps (see Detectors).",
        help="{one_of}: RetinaNet on the backbone.",
        help_many="Tasks: {list}.",
        heading="task",
        title="Task",
        usual="classification",
    ),
    Axis(
        "pyramid_channels",
        "network",
        Whole(4096),
        meaning="Channels of a detector's feature pyramid and head; left out: 256.",
        help="Channels of a detector's feature pyramid and head; 256 if left out.",
        help_many="Channels of a detector's feature pyramid and head.",
        heading="pyramid",
        title="Pyramid channels",
        phrase="pyramid of {} channels",
        grid=None,
    ),
)

_TIMING = (
    Axis("device_name", "machine", "found", heading="device name", title="Device name", early=True),
    Axis(
        "batch_size",
        "timing",
        Whole(1_000_000),
        default=1,
        help="Batch sizes: 1,16.",
        help_many="Batch sizes of the latency: 1,16.",
        heading="batch",
        title="Batch size",
        unit="images",
        phrase="batch {}",
        early=True,
        always=True,
        key="batch_sizes",
    ),
    Axis(
        "dtype",
        "timing",
        Choice(("float32", "tf32", "bfloat16", "float16")),
        default="float32",
        help="Dtypes: {list}.",
        heading="dtype",
        title="Data type",
        early=True,
        always=True,
        key="dtypes",
    ),
    Axis(
        "runtime",
        "timing",
        Choice(("eager", "compile", "cudagraph", "onnxruntime")),
        default="eager",
        help="Runtimes: {list}.",
        heading="runtime",
        title="Runtime",
        early=True,
        key="runtimes",
    ),
    Axis(
        "memory_format",
        "timing",
        Choice(("contiguous", "channels_last")),
        default="contiguous",
        help="Memory formats: {list}.",
        heading="memory format",
        title="Memory format",
        usual="contiguous",
        early=True,
        key="memory_formats",
    ),
    Axis(
        "device",
        "once",
        Choice(("auto", "cpu", "cuda")),
        default="auto",
        help="{one_of}.",
        help_many="{one_of}, to time and to train on.",
        heading="device",
        title="Device",
        early=True,
    ),
    Axis(
        "threads",
        "timing",
        Whole(4096),
        meaning="Threads on a CPU; left out: torch's default.",
        help="Numbers of threads on a CPU: 1,2.",
        heading="threads",
        title="Threads",
        phrase="{} threads",
        early=True,
        grid=None,
    ),
    Axis(
        "cache",
        "timing",
        Choice(("warm", "cold")),
        default="warm",
        meaning="warm: as left by the previous passes; cold: flushed before every sample.",
        help="Caches: {list} (flushed before each pass).",
        heading="cache",
        title="Cache",
        phrase="{} cache",
        usual="warm",
        early=True,
        key="caches",
    ),
    Axis(
        "mode",
        "timing",
        Choice(("inference", "train")),
        default="inference",
        meaning="inference: one forward pass; train: one training step, its update of the weights included.",
        help="What to time: {list} (a training step).",
        heading="mode",
        title="Mode",
        phrase="{} mode",
        usual="inference",
        early=True,
        key="modes",
    ),
    Axis(
        "baseline",
        "timing",
        Choice(("deployed", "trained")),
        default="deployed",
        meaning="deployed: batch normalisations folded into the convolutions before them, in the plain"
        " network that ratios are over and in every other; trained: as they are trained, which a training"
        " step always is.",
        help="Networks with batch normalisation folded, the plain one included, or as trained: {list}.",
        heading="baseline",
        title="Baseline",
        phrase="{} baseline",
        usual="trained",
    ),
    Axis(
        "allocator",
        "timing",
        Choice(("as_is", "settled")),
        default="settled",
        meaning="Of a CPU's memory. settled: glibc keeps what a pass frees for the next one; as_is: it may"
        " return it to the system, and then get it back page by page in each pass, depending on what the"
        " process did before.",
        help="Allocators of a CPU's memory: {list}.",
        heading="allocator",
        title="Allocator",
        phrase="{} allocator",
        usual="as_is",
    ),
    Axis(
        "wait_policy",
        "machine",
        "found",
        heading="wait policy",
        title="Wait policy",
        phrase="threads wait: {}",
        usual=ADAPTIVE,
    ),
    Axis(
        "target",
        "once",
        Number(below=1),
        meaning="Relative half-width of the latency ratio's 95 % interval at which a measurement ends; left"
        " out: 0.01 on a GPU, 0.03 on a CPU.",
        help="Relative half-width of the interval at which a timing stops: 0.01 for ±1 %.",
        early=True,
    ),
    Axis(
        "seconds",
        "once",
        Number(),
        default=5.0,
        meaning="Time budget of one measurement, without warm-up: it then ends, whatever its interval.",
        help="Time limit of one latency in seconds.",
        early=True,
    ),
)

TIMING_AXES: dict[str, Axis] = {axis.name: axis for axis in _TIMING}
"""Every axis of a latency's protocol by its name, in the order in which options have them."""

_FIRST = ("device", "device_name", "dtype")
TIMING_ORDER = (*_FIRST, *(name for name in TIMING_AXES if name not in _FIRST))
"""Their names in the order in which records and exports have them."""

DESIGN_AXES: dict[str, Axis] = {axis.name: axis for axis in _DESIGN}
"""Every axis of designs by its name, in the order in which sweep files, options and exports have them."""

POINT_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.of_point)
"""The names of those that a design point has."""

NETWORK_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.part == "network")
"""Those of its plain network."""

LAYER_AXES = tuple(name for name, axis in DESIGN_AXES.items() if axis.part == "layer")
"""Those that methods read: each its own, named in its entry."""
