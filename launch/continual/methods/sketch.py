"""What many gradients have in common, kept in a memory that does not grow with their number: Frequent Directions."""

from __future__ import annotations

import torch
from torch import Tensor


def taken_in(held: Tensor | None, rows: Tensor, most: int) -> Tensor:
    """Rows (at most 2 · `most`) that stand for `held` and some more: their sum of row^T · row is that of all.

    Exactly so while all fit. Then each of the `most` strongest directions is kept, weakened by the square of the first
    that is not: Frequent Directions (Ghashami et al., arXiv 1501.01711). However many rows have come, what is missing
    from the sum in any direction is at most the squared norm of all that the best k directions leave, by (most - k).
    """
    held = rows.float() if held is None else torch.cat([held, rows.float()])
    if len(held) <= 2 * most:
        return held
    squares, vectors = torch.linalg.eigh(held @ held.T)  # least first; as many as rows, and not as the rows are wide
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    weaker = ((squares[:most] - squares[most]) / squares[:most].clamp(min=torch.finfo(held.dtype).tiny)).sqrt()
    return weaker[:, None] * (vectors[:, :most].T @ held)


def root(products: Tensor) -> Tensor:
    """R with R^T · R a symmetric matrix of products: as many rows instead of all those that were multiplied."""
    squares, vectors = torch.linalg.eigh(products)
    return squares.clamp(min=0).sqrt()[:, None] * vectors.T
