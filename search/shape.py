"""What the data give a network: how wide its first and last blocks are, and whether its inputs lie on a grid."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Shape:
    """The sizes of inputs and outputs; both 0, which is ``UNKNOWN``: nobody knows them.

    Parameters
    ----------
    inputs : number of features.
    outputs : number of classes, or of values to answer.
    image : channels, then the extent of each of 1 to 3 axes, of features that lie on a grid in this order; empty for a
        table.

    Raises
    ------
    ValueError : a number below 1, or an image of another number of features.

    Examples
    --------
    >>> Shape(64, 10, (1, 8, 8)).channels, Shape(64, 10, (1, 8, 8)).size, Shape(30, 2).channels
    (1, (8, 8), 30)
    """

    inputs: int
    outputs: int
    image: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        if self.inputs == self.outputs == 0 and not self.image:
            return
        for name, size in (("inputs", self.inputs), ("outputs", self.outputs), *(("image", n) for n in self.image)):
            if size < 1:
                raise ValueError(f"got {name}={size!r}: it must be at least 1")
        if self.image and (not 2 <= len(self.image) <= 4 or prod(self.image) != self.inputs):
            raise ValueError(
                f"got an image of {self.image} for {self.inputs} features: give channels, then the extent of each of "
                "1 to 3 axes, whose product is the number of features"
            )

    @property
    def channels(self) -> int:
        """Of the first block: features, or channels of an image."""
        return self.image[0] if self.image else self.inputs

    @property
    def size(self) -> tuple[int, ...]:
        """Extent along each axis of an image; none for a table."""
        return self.image[1:]


UNKNOWN = Shape(0, 0)  # of machines of one's own, where nobody says
