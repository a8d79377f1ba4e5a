"""Everything that a reconstruction leaves on disk. docs/results.md says what each file holds."""

from nextface.export.saved import export_scene, load, notes
from nextface.export.strips import debug_strip
from nextface.export.writer import DEFAULT, SUBSETS, write

__all__ = ["DEFAULT", "SUBSETS", "debug_strip", "export_scene", "load", "notes", "write"]
