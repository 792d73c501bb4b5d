"""The paper's figures: their numbers against independent ones, and their files."""

import re
from importlib import import_module

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from figures import HERE, figure1, figure2, gallery

matplotlib.use("Agg")


def test_both_sequences_of_figure1_end_in_the_dense_solution():
    weight, x0 = figure1.problem()
    solution = np.linalg.solve(np.eye(5) - weight, x0)
    for strategy in ("optimized", "expensive"):
        sequence = figure1.states(strategy)
        assert sequence.shape == (5, 5)
        np.testing.assert_allclose(sequence[0], x0, rtol=1e-15)
        np.testing.assert_allclose(sequence[-1], solution, rtol=1e-12)


def test_figure1_has_the_papers_inputs():
    weight, x0 = figure1.problem()
    below = weight[np.tril_indices(5, -1)]
    assert (weight[np.triu_indices(5)] == 0).all()
    for values in (below, x0):
        assert (values >= 0.5).all()
        assert (values < 1.5).all()


def test_each_step_of_figure1_does_what_its_row_says():
    weight, x0 = figure1.problem()
    optimized, expensive = figure1.states("optimized"), figure1.states("expensive")
    for i in range(1, 5):
        assert np.flatnonzero(optimized[i] != optimized[i - 1]).tolist() == [i]
        np.testing.assert_allclose(expensive[i], weight @ expensive[i - 1] + x0, rtol=1e-12)


def test_the_expensive_sequence_computes_an_edge_once_for_every_value_of_its_start():
    assert figure1.times_computed(figure1.states("optimized"), deferred=True).tolist() == [1] * 5
    assert figure1.times_computed(figure1.states("expensive"), deferred=False).tolist() == [1, 2, 3, 4, 5]


@pytest.fixture
def another(monkeypatch):
    """An input of Figure 2 of which no component is 0 but one."""
    x = dict(zip(figure2.INPUT, (2.0, 3.0, -1.0, 1.0, 0.0, 1.0, 2.0, -2.0), strict=True))
    monkeypatch.setattr(figure2, "INPUT", x)


def test_figure2_has_the_values_of_the_readme():
    assert figure2.values() == {"x1": 2, "x2": 3, "x3": 6, "x4": 3, "x5": 7, "x6": 9, "x7": 6, "x8": 4.5}


@pytest.mark.usefixtures("another")
def test_figure2_has_the_values_of_the_papers_formulas():
    x1, x2, x3, x4, x5, x6, x7, x8 = figure2.INPUT.values()
    f1, f2, f3, f4, f5 = figure2.f1, figure2.f2, figure2.f3, figure2.f4, figure2.f5
    expected = {
        "x1": x1,
        "x2": x2,
        "x3": f1(x1, x2) + x3,
        "x4": f3(f1(x1, x2) + x3) + x4,
        "x5": f2(x1) + f4(f3(f1(x1, x2) + x3) + x4)[0] + x5,
        "x6": f4(f3(f1(x1, x2) + x3) + x4)[1] + x6,
        "x7": f4(f3(f1(x1, x2) + x3) + x4)[2] + x7,
        "x8": f5(f4(f3(f1(x1, x2) + x3) + x4)[1] + x6) + x8,
    }
    assert figure2.values() == expected == {"x1": 2, "x2": 3, "x3": 5, "x4": 3, "x5": 7, "x6": 10, "x7": 8, "x8": 3}


@pytest.mark.usefixtures("another")
def test_the_formulas_written_in_figure2_are_those_of_its_functions():
    y = {f"x{i}": value for i, value in enumerate(figure2.values().values(), 1)}
    assert y["x3"] == y["x1"] * y["x2"] + figure2.INPUT["x3"]
    assert y["x4"] == (y["x3"] - 3) + figure2.INPUT["x4"]
    assert (y["x5"], y["x6"], y["x7"]) == (y["x1"] ** 2 + y["x4"], y["x4"] ** 2 + 1, 2 * y["x4"] + 2)
    assert y["x8"] == y["x6"] / 2 - 2


def test_figure2_is_layered_as_in_the_paper():
    f = figure2.architecture()
    assert f.levels == [["f1", "f2"], ["f3"], ["f4"], ["f5"]]
    assert f.depth == 4


@pytest.mark.parametrize("figure", [figure1, figure2])
def test_a_figure_is_written_twice_with_the_same_bytes(figure, tmp_path):
    first, second = figure.main(out=tmp_path / "a"), figure.main(out=tmp_path / "b")
    assert [path.suffix for path in first] == [".svg", ".png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size > 10_000


def test_the_gallery_shows_the_lines_that_draw_its_pictures():
    assert (gallery.DOCS / "gallery.md").read_text(encoding="utf-8") == gallery.page()
    names = {picture.name for picture in gallery.PICTURES}
    files = {path.name for path in (gallery.DOCS / "gallery").iterdir()}
    assert files == {gallery.PAGE, *(f"{name}.{kind}" for name in names for kind in ("svg", "png"))}
    assert sum(path.stat().st_size for path in (gallery.DOCS / "gallery").iterdir()) < 1e6
    for picture in gallery.PICTURES:
        assert len(picture.code.splitlines()) <= 3
        assert f"```python\n{picture.code}\n```" in gallery.page()


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("resnet", {"conv1", "bn1", "relu", *(f"layer{i}.{k}" for i in (1, 2, 3) for k in (0, 1)), "pool", "fc"}),
        ("transformer", {"embedding", "norm", "head", "layers.0.attention", "layers.1.add_2"}),
    ],
)
def test_networks_of_torch_are_drawn_by_module(name, boxes):
    picture = next(picture for picture in gallery.PICTURES if picture.name == name)
    ax = gallery.drawn(picture)
    drawn = {patch.get_gid() for patch in ax.patches}
    assert boxes <= drawn
    assert not any(str(gid).startswith(("layer1.0.", "layers.0.attention.")) for gid in drawn)
    plt.close("all")


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.svg")))
def test_a_published_figure_is_what_its_script_draws_now(name, tmp_path):
    import_module(f"figures.{name}").main(out=tmp_path)
    drawn, published = ((folder / f"{name}.svg").read_text() for folder in (tmp_path, HERE))
    number = re.compile(r"-?\d+\.\d+")
    assert number.sub("#", drawn) == number.sub("#", published)
    places = [np.array(number.findall(text), dtype=float) for text in (drawn, published)]
    np.testing.assert_allclose(*places, atol=0.02)
