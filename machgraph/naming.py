"""Names as people read them."""

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def indexed(name: str) -> str:
    """A name with its index set low.

    >>> indexed("σ_12"), indexed("z_2@1"), indexed("conv1")
    ('σ₁₂', 'z₂@1', 'conv1')
    """
    letter, _, rest = name.partition("_")
    index, at, scale = rest.partition("@")
    return letter + index.translate(_SUBSCRIPTS) + at + scale if index.isascii() and index.isdigit() else name
