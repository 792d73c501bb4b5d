"""Numbers as people read them, and as files hold them."""

import math
from typing import Any


def grouped(number: int) -> str:
    """A whole number with its thousands set apart, or, if it is very large, as a power of ten.

    >>> grouped(48_210), grouped(7 * 10**15)
    ('48,210', '7.0 × 10¹⁵')
    """
    if abs(number) < 10**9:
        return f"{number:,}"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def counted(number: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "trial"), counted(0, "shortcut"), counted(1200, "trial")
    ('1 trial', 'no shortcuts', '1,200 trials')
    """
    return f"{grouped(number) if number else 'no'} {thing}{'s' * (number != 1)}"


def loss_text(loss: float | None) -> str:
    """A loss to four digits; a dash where there is none."""
    return "–" if loss is None or not math.isfinite(loss) else f"{loss:.4g}"


def time_text(seconds: float) -> str:
    """A duration.

    >>> time_text(0.217), time_text(12.4), time_text(3725)
    ('0.22 s', '12 s', '62 min 5 s')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def native(value: Any) -> Any:
    """A number of numpy as Python's own, which JSON can hold; anything else as it is.

    >>> import numpy as np
    >>> native(np.int64(3)), native(np.float32(0.5)), native("all")
    (3, 0.5, 'all')
    """
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value
