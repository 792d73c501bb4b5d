import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machgraph.partition import Partition, channel_mask, fan_in, runs, shortcut_mask

widths = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple)


@given(widths)
def test_blocks_are_a_partition_of_the_index_set(widths):
    partition = Partition(widths)
    indices = np.arange(partition.size)
    assert np.concatenate([indices[partition.block(i)] for i in range(len(partition))]).tolist() == indices.tolist()
    assert [len(indices[partition.block(i)]) for i in range(len(partition))] == list(widths)
    assert partition.block(-1) == partition.block(len(partition) - 1)


@given(widths, st.randoms(use_true_random=False))
def test_channels_spread_the_mask_of_blocks(widths, random):
    blocks, partition = len(widths), Partition(widths)
    mask = shortcut_mask([[j < i and random.random() < 0.5 for j in range(blocks)] for i in range(blocks)], blocks)
    spread = channel_mask(mask, partition)
    for i in range(blocks):
        for j in range(blocks):
            assert (spread[partition.block(i), partition.block(j)] == mask[i, j]).all()
    assert [spread[partition.block(i)][0].sum() for i in range(blocks)] == list(fan_in(mask, partition))


@given(st.lists(st.booleans(), max_size=12))
def test_runs_cover_exactly_what_is_true(flags):
    spans = runs(flags)
    assert [k for start, stop in spans for k in range(start, stop)] == [k for k, flag in enumerate(flags) if flag]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def test_words_for_shortcuts():
    assert shortcut_mask(None, 3).tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert shortcut_mask("sequential", 3).tolist() == [[False] * 3, [True, False, False], [False, True, False]]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Partition(()), "no blocks"),
        (lambda: Partition((3, 0)), "width 0: each width must be a whole number of at least 1"),
        (lambda: Partition((3, 2.5)), "width 2.5"),
        (lambda: Partition((3, True)), "width True"),
        (lambda: shortcut_mask("dense", 3), "shortcuts='dense': give None, \"sequential\""),
        (lambda: shortcut_mask(np.ones((2, 2)), 3), r"shape \(2, 2\): 3 blocks need \(3, 3\)"),
        (lambda: shortcut_mask(np.eye(3, k=-1) * 0.5, 3), "not true or false"),
        (lambda: shortcut_mask(np.eye(3), 3), r"shortcuts\[0, 0\] lets block 0 feed block 0"),
        (lambda: shortcut_mask(np.eye(3, k=1), 3), r"shortcuts\[0, 1\] lets block 1 feed block 0"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
