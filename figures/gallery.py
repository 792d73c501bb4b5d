"""The gallery: pictures of architectures, each beside the lines that draw it, which are the lines that are run.

``python -m figures.gallery`` writes ``docs/gallery.md``, and into ``docs/gallery/`` an SVG and a PNG of each picture.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

import machgraph as mg
from figures import HERE, figure2, save

DOCS = HERE.parent / "docs"
DPI = 90
PAGE = "transformer.html"


# --- networks ---------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two convolutions with batch norm, and what they are given, added."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum, rectified."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet(*blocks: int) -> nn.Module:
    """Stages of so many residual blocks, between a convolution and a linear layer; narrow, for the graph alone."""
    layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(3, 4, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(4)}
    layers["relu"] = nn.ReLU()
    width = 4
    for i, count in enumerate(blocks, 1):
        before, width = width, 4 * 2 ** min(i - 1, 2)
        stages = [Residual(before, width, 1 if i == 1 else 2), *(Residual(width, width, 1) for _ in range(count - 1))]
        layers[f"layer{i}"] = nn.Sequential(*stages)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(width, 10)}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network.eval()


class Attention(nn.Module):
    """Of several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x`` of shape (batch, position, channel) to itself."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and two linear layers, each with a norm before it and what it is given added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.linear1, self.gelu, self.linear2 = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Of shape (batch, position, channel)."""
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(self.gelu(self.linear1(self.norm2(x))))


def transformer(layers: int) -> nn.Module:
    """An encoder of tokens."""
    network = nn.Sequential()
    network.add_module("embedding", nn.Embedding(50, 8))
    network.add_module("layers", nn.Sequential(*(Layer(8, 2) for _ in range(layers))))
    network.add_module("norm", nn.LayerNorm(8))
    network.add_module("head", nn.Linear(8, 50))
    return network.eval()


def random_sum(count: int) -> mg.Architecture:
    """So many machines, each reading what up to three earlier ones write."""
    rng = np.random.default_rng(0)
    machines: list[mg.Architecture] = []
    for i in range(count):
        reads = (
            sorted({f"x{k}" for k in rng.integers(0, i, rng.integers(1, 4))}, key=lambda x: int(x[1:])) if i else ["x"]
        )
        machines.append(mg.Machine(lambda *xs: sum(xs), reads, (f"x{i}",), name=f"f_{i}"))
    return mg.Architecture(machines)


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A name for its files, what it shows, and the lines that draw it, of which the last leaves ``ax``."""

    name: str
    title: str
    says: str
    code: str


PICTURES = (
    Picture(
        "sum",
        "A sum of machines, with its components",
        "Figure 2 of the paper: boxes are machines, labels the components that they read and write.",
        "f = figure2.architecture()\nax = mg.draw.dependency_graph(f, components=True)",
    ),
    Picture(
        "dense",
        "A network with all shortcuts",
        "Five blocks: every linear map w reads all activations σ before it. Each level has its colour.",
        "f = mg.DenseMachine((64, 32, 32, 32, 10))\nax = mg.draw.dependency_graph(f)",
    ),
    Picture(
        "cofiltration",
        "Its cofiltration",
        "Which components are not final after i levels, a staircase down to nothing.",
        "f = mg.DenseMachine((64, 32, 32, 32, 10))\nax = mg.draw.cofiltration(f)",
    ),
    Picture(
        "convolution",
        "Convolutions with pooling between",
        "Blocks on three grids; pooling is one more machine of the sum.",
        "f = mg.ConvMachine((3, 8, 8, 9), kernel_size=(3, 3), scales=(0, 0, 1, 2))\nax = mg.draw.dependency_graph(f)",
    ),
    Picture(
        "recurrence",
        "A recurrence, folded over time",
        "Dashed lines come from earlier turns, at the lags that they say.",
        "f = mg.RecurrentMachine((8, 32, 32, 1), lags=2)\nax = mg.draw.dependency_graph(f)",
    ),
    Picture(
        "random",
        "Forty machines",
        "A random sum, every machine drawn.",
        "f = random_sum(40)\nax = mg.draw.dependency_graph(f)",
    ),
    Picture(
        "resnet",
        "A residual network from torch",
        "51 machines by the names of their modules; no more than 40 boxes unless asked for, in rows as wide as a page.",
        "f = mg.from_torch(resnet(2, 2, 2), torch.zeros(1, 3, 16, 16))\nax = mg.draw.dependency_graph(f)",
    ),
    Picture(
        "residual",
        "All machines of its first stage",
        "An architecture is a sum: some of its machines are one too.",
        "f = mg.from_torch(resnet(2, 2, 2), torch.zeros(1, 3, 16, 16))\n"
        'stage = mg.Architecture([m for m in f.machines if m.name.startswith("layer1")])\n'
        "ax = mg.draw.dependency_graph(stage, group=None)",
    ),
    Picture(
        "large",
        "Three hundred machines",
        "The same with 44 blocks, one box for each stage: `group=1`, one name of a module.",
        "f = mg.from_torch(resnet(8, 12, 16, 8), torch.zeros(1, 3, 16, 16))\nax = mg.draw.dependency_graph(f, group=1)",
    ),
    Picture(
        "transformer",
        "A Transformer",
        "Two layers of an encoder, attention as one box: `group=3`, three names.",
        "f = mg.from_torch(transformer(2), torch.zeros(1, 6, dtype=torch.long))\n"
        "ax = mg.draw.dependency_graph(f, group=3)",
    ),
)
INTRODUCTION = """# Gallery

Pictures for papers, from `mg.draw`. Each is beside the lines that draw it; `ax.figure.savefig("picture.pdf")` writes
it as vectors, with letters of 9 points at its own size, which is at most a page wide where few lines cross. Colours are
Okabe and Ito's, told apart with any kind of colour blindness. `python -m figures.gallery` draws this page, and its
networks are in `figures/gallery.py`.

To look around in a graph: `Path("net.html").write_text(mg.draw.html(f))`, or `machgraph show FILE --html`, is a page in
which groups open and close, as [this Transformer]({page}) (download it; it needs no network).
"""


def drawn(picture: Picture) -> Any:
    """The axes that the lines of a picture leave."""
    names: dict[str, Any] = {
        "mg": mg,
        "torch": torch,
        "figure2": figure2,
        "resnet": resnet,
        "transformer": transformer,
        "random_sum": random_sum,
    }
    exec(picture.code, names)  # the lines of this file, which the page shows
    return names["ax"]


def page() -> str:
    """The gallery as Markdown."""
    parts = [INTRODUCTION.format(page=f"gallery/{PAGE}")]
    for picture in PICTURES:
        parts.append(f"## {picture.title}\n\n{picture.says}\n\n```python\n{picture.code}\n```\n")
        parts.append(f"![{picture.title}](gallery/{picture.name}.svg)\n")
    return "\n".join(parts)


def main(*, out: Path = DOCS) -> list[Path]:
    """Write the page and its pictures into the folder ``out``; returns what was written."""
    paths = []
    for picture in PICTURES:
        figure = drawn(picture).figure
        paths += save(figure, out / "gallery", picture.name, DPI)
        plt.close(figure)
    torch_model = mg.from_torch(transformer(4), torch.zeros(1, 6, dtype=torch.long))
    paths += [out / "gallery" / PAGE, out / "gallery.md"]
    paths[-2].write_text(mg.draw.html(torch_model, title="Transformer"), encoding="utf-8")
    paths[-1].write_text(page(), encoding="utf-8")
    return paths


if __name__ == "__main__":
    for path in main():
        print(path)
