"""The mesh as Wavefront OBJ with its material library.

trimesh would split vertices along the texture seam on export; here the file keeps the model's own vertices, so that vertex
number n is the same point of every head.
"""

from __future__ import annotations

import numpy as np

SIGNIFICANT = "%.5f"


def obj(
    vertices: np.ndarray,
    normals: np.ndarray,
    uv: np.ndarray,
    triangles: np.ndarray,
    uv_triangles: np.ndarray,
    library: str,
    comment: str,
) -> bytes:
    """OBJ text.

    vertices, normals: mm and unit vectors in axes with y up. [V, 3]
    uv: lower-left origin, as OBJ has it. [U, 2]; triangles, uv_triangles: zero-based. [T, 3]
    library: file name of the MTL beside it.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    corners = np.stack([triangles, uv_triangles, triangles], -1).reshape(len(triangles), 9) + 1
    parts = [
        f"{head}mtllib {library}\no head\n",
        _rows(f"v {SIGNIFICANT} {SIGNIFICANT} {SIGNIFICANT}\n", vertices),
        _rows("vt %.6f %.6f\n", uv),
        _rows("vn %.4f %.4f %.4f\n", normals),
        "usemtl skin\ns 1\n",
        _rows("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners),
    ]
    return "".join(parts).encode("ascii")


def _rows(pattern: str, rows: np.ndarray) -> str:
    """Every row through a printf pattern; one formatting call for all is ten times faster than `savetxt`."""
    return (pattern * len(rows)) % tuple(rows.ravel().tolist())


def mtl(diffuse: str) -> bytes:
    """MTL text with the diffuse map. The other maps stay out: readers disagree on their keys and colour spaces (GLB has them)."""
    return (
        f"newmtl skin\nKa 0 0 0\nKd 1 1 1\nKs 0.028 0.028 0.028\nNs 30\nNi 1.4\nd 1\nillum 2\nmap_Kd {diffuse}\n"
    ).encode()
