"""The colours of what can become of a trial: one list for the report, light and dark, and for the pictures of a run.

They are Okabe and Ito's, told apart with any kind of colour blindness, darkened where they would be too faint on white
(a graph's parts want a contrast of 3 to what is behind them). No colour stands alone: dots differ in shape and size, or
in where they stand, and every status is told in words.
"""

from collections.abc import Mapping
from types import MappingProxyType

STATUSES: Mapping[str, tuple[str, str]] = MappingProxyType(  # on white, on black
    {
        "complete": ("#0072B2", "#56B4E9"),
        "stopped": ("#009E73", "#63E0B0"),
        "halved": ("#C08000", "#EFB83A"),
        "diverged": ("#C64A00", "#F26B3A"),
        "duplicate": ("#5F6871", "#7C8590"),
        "infeasible": ("#B65C93", "#D68AD0"),
        "failed": ("#882255", "#F0E442"),
    }
)
