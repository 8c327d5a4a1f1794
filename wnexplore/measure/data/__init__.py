"""The data sets that trainings read, as batches of normalised images."""

from wnexplore.measure.data.folder import FolderSplit
from wnexplore.measure.data.load import load_data
from wnexplore.measure.data.passes import Augment, Batch, Data, Pass, Split
from wnexplore.measure.data.tensors import TensorSplit

__all__ = ["Augment", "Batch", "Data", "FolderSplit", "Pass", "Split", "TensorSplit", "load_data"]
