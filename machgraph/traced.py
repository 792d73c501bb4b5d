"""Architectures that are called as the module is from which they come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from machgraph.architecture import Architecture


class Traced(Architecture):
    """The architecture of a module, which is also called as the module is.

    Attributes
    ----------
    inputs : names of the components that the tensors among the arguments are, in order.
    outputs : what the module returns, with the name of a component in the place of each tensor.
    updates : the buffers that the module changes, by the component that holds their next value, as they are now. A
        call of the architecture stores it there, as a call of the module does; ``resolvent`` leaves them alone.
    """

    def __init__(
        self,
        machines: Iterable[Architecture],
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        returns: Any,
        updates: Mapping[str, Tensor],
    ) -> None:
        super().__init__(machines)
        self._arguments, self._returns = arguments, returns  # as in a call, with an Argument for each leaf
        self.inputs = tuple(leaf.name for leaf in pytree.tree_leaves(arguments) if leaf.name)
        self.outputs = pytree.tree_map(lambda leaf: leaf.name or leaf.value, returns)
        # by name, since conversions such as double() put other tensors in their place
        self._updates = {component: self._places(component, buffer) for component, buffer in updates.items()}

    @property
    def updates(self) -> dict[str, Tensor]:
        """Of each component, the buffer that takes its value after a call."""
        return {component: self.get_buffer(places[0]) for component, places in self._updates.items()}

    def _places(self, component: str, buffer: Tensor) -> list[str]:
        """The names of a buffer in the machines that read it; in none of them, it gets one here."""
        places = [name for name, held in self.named_buffers(remove_duplicate=False) if held is buffer]
        if not places:
            places = [component.replace(".", "_")]
            while hasattr(self, places[0]):
                places[0] += "_"
            self.register_buffer(places[0], buffer)
        return places

    def point(self, *inputs: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The arguments of a call as an element of machine space, ``g`` of ``resolvent``.

        Raises
        ------
        ValueError : arguments of another structure, shape or (where they are no tensors) value than the example's.
        """
        known = list(self._arguments[1])  # the order of keywords is not part of a call
        kwargs = {name: kwargs[name] for name in sorted(kwargs, key=lambda k: known.index(k) if k in known else -1)}
        leaves, spec = pytree.tree_flatten((inputs, kwargs))
        arguments, expected = pytree.tree_flatten(self._arguments)
        if spec != expected:
            raise ValueError(
                f"got arguments of another structure than the example's: give {_told(*self._arguments)}, "
                "or call from_torch with these"
            )
        sizes: dict[str, int] = {}
        for argument, leaf in zip(arguments, leaves, strict=True):
            argument.check(leaf, sizes)
        return {argument.name: leaf for argument, leaf in zip(arguments, leaves, strict=True) if argument.name}

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module returns, through ``resolvent``; see ``point`` for what is raised."""
        h = self.resolvent(self.point(*inputs, **kwargs))
        with torch.no_grad():
            for component, places in self._updates.items():
                for place in places:
                    self.get_buffer(place).copy_(h[component])
        return pytree.tree_map(lambda leaf: h[leaf.name] if leaf.name else leaf.value, self._returns)


@dataclass(frozen=True)
class Dimension:
    """A size that may vary; one name is one size."""

    name: str
    smallest: int
    largest: int


@dataclass(frozen=True)
class Argument:
    """One leaf of what a module is given or returns: a component of this name and shape, or else a value."""

    name: str = ""
    shape: tuple[int | Dimension, ...] = ()
    value: Any = None

    def check(self, leaf: Any, sizes: dict[str, int]) -> None:
        """Refuse what is not of the example's kind; ``sizes`` keeps what the names of dimensions stand for."""
        if not self.name:
            if type(leaf) is not type(self.value) or leaf != self.value:
                raise ValueError(
                    f"got an argument {leaf!r} where the example had {self.value!r}, and what is no tensor is part of "
                    "the graph: call from_torch with it"
                )
            return
        if not isinstance(leaf, Tensor):
            raise ValueError(f"got {type(leaf).__name__} for {self.name}: give a tensor")
        fits = leaf.dim() == len(self.shape) and all(
            size == d
            if isinstance(d, int)
            else d.smallest <= size <= d.largest and sizes.setdefault(d.name, size) == size
            for d, size in zip(self.shape, leaf.shape, strict=True)
        )
        if not fits:
            shape = ", ".join(str(d) if isinstance(d, int) else d.name for d in self.shape)
            raise ValueError(
                f"got {self.name} of shape {tuple(leaf.shape)}, and this graph is for ({shape}): call from_torch with "
                "an example of this shape, or free an axis with dynamic_shapes"
            )


def _told(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    args, kwargs = pytree.tree_map(lambda leaf: leaf.name or repr(leaf.value), (args, kwargs))
    words = [*map(str, args), *(f"{name}={value}" for name, value in kwargs.items())]
    return f"({', '.join(words)})".replace("'", "")
