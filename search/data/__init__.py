"""Data of any kind, split into three parts and encoded by what the first one holds: `dataset` takes them all."""

from search.data.parts import Dataset, Part
from search.data.reading import BUNDLED, dataset, load
from search.data.series import from_series
from search.data.sources import from_arrays, from_frame, from_torch
from search.data.splitting import split

__all__ = [
    "BUNDLED", "Dataset", "Part", "dataset", "from_arrays", "from_frame", "from_series", "from_torch", "load", "split",
]  # fmt: skip
