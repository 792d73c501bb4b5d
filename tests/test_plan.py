import numpy as np
from helpers import masks
from hypothesis import given

from machgraph.boxes import dense_plan
from machgraph.partition import Partition, channel_mask, shortcut_mask
from machgraph.plan import Accumulate, Activate, Plan


@given(masks())
def test_products_read_each_entry_of_the_mask_once(case):
    partition, mask = case
    read = np.zeros((partition.size, partition.size), dtype=int)
    for step in dense_plan(partition, mask).products:
        read[slice(*step.rows), slice(*step.inputs)] += 1
    assert (read == channel_mask(mask, partition)).all()


@given(masks())
def test_nothing_is_read_before_it_is_final(case):
    """The plan is a cofiltration: a row of Z is complete when a product reads it, and so is a row of Y when σ does."""
    partition, mask = case
    plan = dense_plan(partition, mask)
    for one in (plan, plan.dual):
        # Forward, products feed Y and σ feeds Z; in the dual, products feed U = "Y" and slopes feed V = "Z".
        unfinished_y = [step for step in one.instructions if isinstance(step, Accumulate)]
        unfinished_z = [step for step in one.instructions if isinstance(step, Activate)]
        for step in one.instructions:
            if isinstance(step, Accumulate):
                assert not any(_meet(step.inputs, other.rows) for other in unfinished_z)
                unfinished_y.remove(step)
            else:
                assert not any(_meet(step.rows, other.rows) for other in unfinished_y)
                unfinished_z.remove(step)


@given(masks())
def test_the_dual_of_the_dual_is_the_plan(case):
    plan = dense_plan(*case)
    assert plan.dual.dual == plan


def test_adjoint_negates_the_offset():
    step = Accumulate(rows=(2, 4), inputs=(0, 2), columns=(3, 5), tap=1, offset=-2)
    assert step.adjoint() == Accumulate(rows=(0, 2), inputs=(2, 4), columns=(1, 3), tap=1, offset=2)
    assert step.adjoint().adjoint() == step


def test_neighbouring_sources_are_one_product():
    plan = dense_plan(Partition((1, 1, 1, 1)), shortcut_mask([[0] * 4, [0] * 4, [1, 1, 0, 0], [1, 0, 1, 0]], 4))
    assert [step.inputs for step in plan.products] == [(0, 2), (0, 1), (2, 3)]


def test_equal_plans_are_one_object():
    make = lambda: dense_plan(Partition((2, 1)), shortcut_mask(None, 2))  # noqa: E731
    assert make() is make()
    assert isinstance(make(), Plan)
    assert hash(make())


def _meet(a, b):
    return a[0] < b[1] and b[0] < a[1]
