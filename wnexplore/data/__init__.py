"""Data sets as batches of normalised images."""

from wnexplore.data.folder import FolderSplit
from wnexplore.data.in_memory import TensorSplit
from wnexplore.data.load import load_data
from wnexplore.data.splits import Augment, Batch, Data, EpochPass, Split

__all__ = ["Augment", "Batch", "Data", "EpochPass", "FolderSplit", "Split", "TensorSplit", "load_data"]
