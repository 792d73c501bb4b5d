"""The paper's figures, redrawn: each script writes an SVG and a PNG and never trains."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

HERE = Path(__file__).parent


def save(figure: Figure, out: Path, name: str, dpi: int = 200) -> list[Path]:
    """Write ``name.svg`` and ``name.png`` into the folder ``out``; the same figure gives the same bytes each time."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.svg", out / f"{name}.png"]
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=dpi)
    return paths
