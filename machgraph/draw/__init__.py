"""Pictures of architectures: who depends on whom, the cofiltration, the shortcuts, how a solution builds up.

Every function draws in the axes that it is given, or in a figure of its own whose size fits the picture, and returns
the axes; ``dot``, ``graphml`` and ``html`` return text, for other programs and for browsers. Level i has the same
colour in every picture; what is there from the start (the input) is grey.
"""

from machgraph.draw.canvas import level_colour, spelled
from machgraph.draw.charts import cofiltration, depth_sequence, shortcuts
from machgraph.draw.files import dot, graphml
from machgraph.draw.filling import filling, index_cofiltration
from machgraph.draw.graphs import dependency_graph
from machgraph.draw.page import html

__all__ = [
    "cofiltration",
    "dependency_graph",
    "depth_sequence",
    "dot",
    "filling",
    "graphml",
    "html",
    "index_cofiltration",
    "level_colour",
    "shortcuts",
    "spelled",
]
