"""The data sets that trainings read, as batches of normalised images."""

from wnexplore.data.folder import FolderSplit
from wnexplore.data.load import load_data
from wnexplore.data.passes import Augment, Batch, Data, Pass, Split
from wnexplore.data.tensors import TensorSplit

__all__ = ["Augment", "Batch", "Data", "FolderSplit", "Pass", "Split", "TensorSplit", "load_data"]
