"""Data sets as text, `NAME[:ARGUMENT]`: name, path of the files, or size of a synthetic one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wnexplore.errors import InputError, shown, unknown

DATA_SETS = ("digits", "cifar10", "cifar100", "fashion_mnist", "folder", "shapes", "scenes", "coco")
DETECTION = ("scenes", "coco")
"""Those of images with boxes."""
DOWNLOADABLE = ("cifar10", "cifar100", "fashion_mnist")

SHAPES_CLASSES, SHAPES_IMAGES = 10, 2000
MAX_SHAPES_IMAGES = 10**7
SCENES_CLASSES = 4
DRAWINGS = {"coarse": 100, "fine": 1000, "superclasses": 100}
"""Drawing of `shapes` -> its largest number of classes; the first is what a text without one means."""


@dataclass(frozen=True)
class DataSource:
    """A data set and its arguments."""

    name: str
    path: Path | None = None
    """Folder of its files, for those that have any."""
    classes: int | None = None
    """Only for `shapes` and `scenes`, like `images`, the number of training images."""
    images: int | None = None
    drawing: str = "coarse"
    """Of `shapes`, one of `DRAWINGS`."""

    @property
    def task(self) -> str:
        """What its images are for: a name of `wnexplore.design.vision_tasks.TASKS`."""
        return "detection" if self.name in DETECTION else "classification"

    @property
    def label(self) -> str:
        """Its name in records and tables: `shapes:20x5000`; without its path."""
        if self in (DataSource(self.name, self.path), _USUAL_SHAPES, _USUAL_SCENES):
            return self.name
        images = "" if self.images == SHAPES_IMAGES else f"x{self.images}"
        drawing = "" if self.drawing == _USUAL_SHAPES.drawing else f":{self.drawing}"
        return f"{self.name}:{self.classes}{images}{drawing}"

    @property
    def text(self) -> str:
        """The text from which `parse_data` makes this, in any working directory."""
        return self.label if self.path is None else f"{self.name}:{self.path.resolve()}"


_USUAL_SHAPES = DataSource("shapes", None, SHAPES_CLASSES, SHAPES_IMAGES)
_USUAL_SCENES = DataSource("scenes", None, SCENES_CLASSES, SHAPES_IMAGES)


def parse_data(text: str, path: Path | None = None) -> DataSource:
    """The data set that `text` names; `path` is its folder where `text` has none.

    `digits`, `cifar10:PATH`, `cifar100:PATH`, `fashion_mnist:PATH`, `folder:PATH`, `shapes`,
    `shapes:CLASSES`, `shapes:CLASSESxIMAGES`, the last two also with `:fine` or `:superclasses`; for
    detection `scenes`, `scenes:CLASSES`, `scenes:CLASSESxIMAGES` and `coco:PATH`. Raises
    `InputError` for an unknown name, for an argument or path that is missing, superfluous, given twice or
    malformed.
    """
    name, argument = _parts(text)
    if name in ("digits", *_DRAWN):
        if path is not None:
            how = "embedded" if name == "digits" else "made on the fly"
            raise InputError(f"data set '{name}' is {how}: leave path ({path}) out")
        return DataSource(name) if name == "digits" else _DRAWN[name](argument)
    if argument is not None and path is not None and Path(argument) != path:
        raise InputError(f"data set '{text}' and path {path} name two folders: leave one out")
    if argument is None and path is None:
        raise InputError(f"data set '{name}' needs the path of its folder: '{name}:PATH'")
    return DataSource(name, path if argument is None else Path(argument))


def check_data(text: object) -> str:
    """`text`, if it may name a data set, with or without its path; `InputError` otherwise."""
    if not isinstance(text, str):
        raise unknown("data set", text, DATA_SETS)
    name, argument = _parts(text)
    if name in _DRAWN:
        _DRAWN[name](argument)
    return text


def _parts(text: str) -> tuple[str, str | None]:
    name, colon, argument = text.partition(":")
    if name not in DATA_SETS:
        raise unknown("data set", name, DATA_SETS)
    if not colon:
        return name, None
    if name == "digits":
        raise InputError(f"data set '{text}': 'digits' is embedded and takes nothing after its name")
    if not argument:
        wanted = "CLASSESxIMAGES" if name in _DRAWN else "PATH"
        raise InputError(f"data set '{text}': expected '{name}:{wanted}'")
    return name, argument


def _shapes(argument: str | None) -> DataSource:
    """The source of `20`, `20x5000`, `20x5000:fine`, `20x5000:superclasses` or nothing."""
    if argument is None:
        return _USUAL_SHAPES
    found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?(?::(.*))?", argument, re.DOTALL)
    if found is None:
        raise InputError(
            f"data set 'shapes:{shown(argument)}': expected 'shapes:CLASSES', 'shapes:CLASSESxIMAGES' or"
            " 'shapes:CLASSESxIMAGES:DRAWING', such as shapes:20x5000 or shapes:20x5000:fine"
        )
    classes, images = int(found[1]), int(found[2] or SHAPES_IMAGES)
    drawing = _USUAL_SHAPES.drawing if found[3] is None else found[3]
    if drawing not in DRAWINGS:
        raise unknown("drawing of shapes", drawing, DRAWINGS)
    if not 2 <= classes <= DRAWINGS[drawing]:
        larger = [other for other, most in DRAWINGS.items() if 2 <= classes <= most]
        more = f", or another drawing: 'shapes:{classes}:{larger[0]}'" if larger else ""
        raise InputError(f"data set 'shapes:{argument}': expected 2 to {DRAWINGS[drawing]} classes{more}")
    # The test has half as many images as the training, and at least one of each class.
    if not 2 * classes <= images <= MAX_SHAPES_IMAGES:
        raise InputError(
            f"data set 'shapes:{argument}': expected {2 * classes} to {MAX_SHAPES_IMAGES} images"
            f" for {classes} classes"
        )
    return DataSource("shapes", None, classes, images, drawing)


def _scenes(argument: str | None) -> DataSource:
    """The source of `4`, `4x2000` or nothing."""
    if argument is None:
        return _USUAL_SCENES
    found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", argument)
    if found is None:
        raise InputError(
            f"data set 'scenes:{shown(argument)}': expected 'scenes:CLASSES' or 'scenes:CLASSESxIMAGES', such"
            " as scenes:4x2000"
        )
    classes, images = int(found[1]), int(found[2] or SHAPES_IMAGES)
    most = DRAWINGS[_USUAL_SHAPES.drawing]
    if not 1 <= classes <= most:
        raise InputError(f"data set 'scenes:{argument}': expected 1 to {most} classes")
    # The test has half as many, the second of which has an object.
    if not 4 <= images <= MAX_SHAPES_IMAGES:
        raise InputError(f"data set 'scenes:{argument}': expected 4 to {MAX_SHAPES_IMAGES} images")
    return DataSource("scenes", None, classes, images)


_DRAWN = {"shapes": _shapes, "scenes": _scenes}
"""Data sets that are drawn -> what reads their argument."""
