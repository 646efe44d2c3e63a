"""Connected components of a graph given as edges, in numpy: which documents hang together through shared keys.

Union-find (Tarjan 1975) turned into whole-array steps as in Shiloach and Vishkin (1982): the root of every edge's greater
end is hung under the smaller root, then all paths are halved until they are flat. The representative of a group is its
smallest member, whatever the order of the edges. 8 bytes a member; 1e9 documents are 8 GB.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Components", "best", "edges"]


class Components:
    """Groups of the numbers 0 ... count-1, at first each by itself.

    groups = Components(5)
    groups.add([0, 3], [4, 4])
    groups.roots()  # array([0, 1, 2, 0, 0])
    """

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)  # never greater than the member itself

    def __len__(self) -> int:
        return len(self._parent)

    def add(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join left[i] with right[i] for all i. Both (m,) integers below the count; m of any size, in any order."""
        left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
        while len(left):
            left, right = self.roots(left), self.roots(right)
            apart = left != right
            low, high = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
            np.minimum.at(self._parent, high, low)  # of several smaller roots the smallest wins; the rest next time
            left, right = low, high

    def roots(self, places: np.ndarray | None = None) -> np.ndarray:
        """The smallest member of the group of each place: (m,) int64; of all members where none are given."""
        parent = self._parent
        if places is None:
            while not np.array_equal(halved := parent[parent], parent):
                parent = halved
            self._parent = parent
            return parent.copy()
        places = np.asarray(places, np.int64)
        here = places
        while True:
            above = parent[here]
            further = parent[above]
            if np.array_equal(above, further):
                parent[places] = above  # who asks again has one step to go
                return above
            parent[here] = further  # path halving
            here = further


def best(roots: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """(n,) int64, for each of n members the one of its group with the smallest rank, of equal ones the first.

    roots: (n,) as `Components.roots()` gives them. rank: (n,).
    """
    order = np.lexsort((np.arange(len(roots)), rank, roots))
    ordered = roots[order]
    starts = np.ones(len(roots), bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(roots)), 0))
    found = np.empty(len(roots), np.int64)
    found[order] = order[first]
    return found


def edges(keys: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that join the owners of equal keys: neighbours after sorting, one fewer than there are of each key.

    keys: (m,) uint64. owners: (m,) int64, whose key it is.
    """
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    same = (keys[1:] == keys[:-1]) & (owners[1:] != owners[:-1])
    return owners[:-1][same], owners[1:][same]
