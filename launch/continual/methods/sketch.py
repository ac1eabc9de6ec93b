"""What many gradients have in common, kept in a memory that does not grow with their number: Frequent Directions."""

from __future__ import annotations

import torch
from torch import Tensor


def taken_in(held: Tensor | None, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Rows (at most 2 · `most`) that stand for `held` and some more, and by how much they are weaker this time.

    The sum of row^T · row is exactly that of all while all fit. Then the `most` strongest directions are kept, and the
    square of the first that is not is taken off the square of each: Frequent Directions (Ghashami et al., arXiv
    1501.01711). However many rows have come, what is missing in any direction is at most what has been taken off in
    all, which is at most the squared norm that the best k directions leave, by (most - k).
    """
    held = rows.float() if held is None else torch.cat([held, rows.float()])
    if len(held) <= 2 * most:
        return held, held.new_zeros(())
    squares, vectors = torch.linalg.eigh(held @ held.T)  # least first; as many as rows, and not as the rows are wide
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    less = squares[most]
    factors = ((squares[:most] - less) / squares[:most].clamp(min=torch.finfo(held.dtype).tiny)).sqrt()
    return factors[:, None] * (vectors[:, :most].T @ held), less


def root(products: Tensor) -> Tensor:
    """R with R^T · R a symmetric matrix of products: as many rows instead of all those that were multiplied."""
    squares, vectors = torch.linalg.eigh(products)
    rows: Tensor = squares.clamp(min=0).sqrt()[:, None] * vectors.T
    return rows
