"""What comes after what in a batch: as a graph, laid out in layers, drawn as text and as SVG.
Pure: from the API's JSON to lines."""

from .model import Edge, Graph, Node, graph_of
from .svg import as_svg
from .text import as_lines

__all__ = ["Edge", "Graph", "Node", "as_lines", "as_svg", "graph_of"]
