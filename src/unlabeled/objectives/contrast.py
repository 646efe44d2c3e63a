"""Contrastive losses: one of many candidates is the right one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.parallel.gather import gather
from unlabeled.parallel.world import rank

__all__ = ["info_nce", "nt_xent"]


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent of two views (Chen et al. 2020, eq. 1):

        l(i, j) = -log  exp(<u_i, u_j> / T) / sum_{k != i} exp(<u_i, u_k> / T),    u = z / |z|

    averaged over both orders of all pairs. first, second: (n, width), row i of each from the same image. Candidates
    are the rows of all processes, with gradient. Returns the loss of this process's 2n rows, in nats, and the share of
    them whose other view is the nearest candidate. Computes in float32, or float64 if given that.
    """
    with torch.autocast(first.device.type, enabled=False):
        kind = torch.promote_types(first.dtype, torch.float32)
        u, v = (F.normalize(z.to(kind), dim=1) for z in (first, second))
        everything = torch.cat([gather(u), gather(v)])
        n, half = len(u), len(everything) // 2
        mine = torch.arange(n, device=u.device) + rank() * n
        itself = torch.cat([mine, mine + half])
        partner = torch.cat([mine + half, mine])
        logits = torch.cat([u, v]) @ everything.T / temperature
        logits = logits.scatter(1, itself[:, None], float("-inf"))
        return F.cross_entropy(logits, partner), (logits.argmax(1) == partner).to(kind).mean()


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of queries and their keys against given negatives (van den Oord et al. 2018; He et al. 2020, eq. 1):

        l(i) = -log  exp(<q_i, k_i> / T) / ( exp(<q_i, k_i> / T) + sum_j exp(<q_i, n_j> / T) )

    averaged over i. queries, keys: (n, width), row i of each from the same image; negatives: (m, width); all of unit
    length already. Returns the loss in nats, log(m + 1) where nothing is told apart, and the share of queries whose key
    is nearer than every negative. Computes in float32, or float64 if given that.
    """
    with torch.autocast(queries.device.type, enabled=False):
        kind = torch.promote_types(queries.dtype, torch.float32)
        q, k = queries.to(kind), keys.to(kind)
        own = (q * k).sum(1) / temperature
        others = q @ negatives.to(kind).T / temperature
        # The logits are never put side by side: with 65,536 negatives that copy would be most of the memory.
        loss = (torch.logaddexp(own, others.logsumexp(1)) - own).mean()
        return loss, (own > others.amax(1)).to(kind).mean()
