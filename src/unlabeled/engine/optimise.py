"""Plans to optimisers: which weights move, by which algorithm, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unlabeled.core.clock import Clock
from unlabeled.core.errors import UserError
from unlabeled.core.method import Method, OptimizerPlan
from unlabeled.parallel.shard import whole
from unlabeled.parallel.world import world

__all__ = ["LARS", "Part", "parts_of"]


class LARS(Optimizer):
    """SGD with momentum whose step is scaled by layer (You et al. 2017, in the form of SimCLR's authors' code):

        g <- g + decay * w;   trust = eta |w| / |g|  (1 where either is 0);   v <- momentum v + lr trust g;   w <- w - v

    The decay counts in |g|, and the learning rate is inside the momentum. Groups with `adapt=False` (biases and
    normalisation) take plain momentum steps.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, eta: float = 1e-3):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                trust: Tensor | float = 1.0
                if group["adapt"]:
                    w_norm, g_norm = whole(p.norm()), whole(g.norm())
                    trust = torch.where((w_norm > 0) & (g_norm > 0), group["eta"] * w_norm / g_norm, 1.0)
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                v = state["momentum_buffer"]
                v.mul_(group["momentum"]).add_(g * (group["lr"] * trust))
                p.sub_(v)


@dataclass
class Part:
    """A group of parameters with its own optimiser."""

    plan: OptimizerPlan
    named: dict[str, nn.Parameter]
    optimizers: list[Optimizer]

    def step(self, clock: Clock) -> dict[str, Tensor]:
        """Clip, set the learning rate of this clock, move the weights, drop the gradients; the gradient's norm."""
        lr = self.plan.lr(clock)
        limit = self.plan.clip_norm if self.plan.clip_norm is not None else float("inf")
        norm = whole(nn.utils.clip_grad_norm_(list(self.named.values()), limit))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"lr": torch.tensor(lr), "gradient_norm": norm.detach()}

    def state(self) -> dict[str, Tensor]:
        """Tensors of the optimisers, by `<index>.<parameter>.<name>`."""
        names: dict[Tensor, str] = {p: n for n, p in self.named.items()}
        return {
            f"{i}.{names[p]}.{key}": value
            for i, optimizer in enumerate(self.optimizers)
            for p, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }

    def blank_state(self, shapes: Mapping[str, tuple[list[int], str]]) -> dict[str, Tensor]:
        """Give the optimisers zeroed state of these names, shapes and dtypes, to be filled from a checkpoint."""
        for name, (shape, dtype) in shapes.items():
            index, rest = name.split(".", 1)
            parameter, key = rest.rsplit(".", 1)
            p = self.named[parameter]
            kind = getattr(torch, dtype)
            like = (
                torch.zeros_like(p, dtype=kind)
                if list(p.shape) == shape
                else torch.zeros(shape, dtype=kind, device=p.device)
            )
            self.optimizers[int(index)].state[p][key] = like.detach()
        return self.state()


def parts_of(method: Method) -> dict[str, Part]:
    """The parts of a method with their optimisers; parameters of no part stop requiring gradients.

    Raises:
        UserError: where a parameter would belong to two parts.
    """
    networks = method.networks()
    taken: dict[nn.Parameter, str] = {}
    prefix = {id(module): name for name, module in method.named_modules()}
    parts = {}
    for name, plan in method.optimizers().items():
        named = {}
        for network in plan.networks or tuple(networks):
            for n, p in networks[network].named_parameters():
                if not p.requires_grad:
                    continue
                if taken.setdefault(p, name) != name:
                    raise UserError(f"{n} of {type(method).__name__} belongs to parts {taken[p]!r} and {name!r}.")
                named[f"{prefix[id(networks[network])]}.{n}"] = p
        parts[name] = Part(plan, named, _build(plan, named))
    for p in method.parameters():
        p.requires_grad_(p in taken)
    return parts


def _build(plan: OptimizerPlan, named: Mapping[str, nn.Parameter]) -> list[Optimizer]:
    lr = plan.lr.peak
    options = dict(plan.options)

    def groups(chosen: Mapping[str, nn.Parameter], extra: Mapping[str, Any]) -> list[dict[str, Any]]:
        yes = [p for n, p in chosen.items() if plan.decays(n, p)]
        no = [p for n, p in chosen.items() if not plan.decays(n, p)]
        both = [{"params": yes, "weight_decay": plan.weight_decay}, {"params": no, "weight_decay": 0.0, **extra}]
        return [g for g in both if g["params"]]

    if plan.algorithm in ("adamw", "adam"):
        kind = torch.optim.AdamW if plan.algorithm == "adamw" else torch.optim.Adam
        return [kind(groups(named, {}), lr=lr, fused=True, **options)]
    if plan.algorithm == "sgd":
        # torch has no sharding rule for the fused SGD kernel.
        return [torch.optim.SGD(groups(named, {}), lr=lr, fused=world() == 1, **options)]
    if plan.algorithm == "lars":
        return [LARS(groups(named, {"adapt": False}), lr=lr, **options)]
    if plan.algorithm == "adafactor":
        if world() > 1:
            raise UserError("Adafactor keeps row and column sums that are not sharded yet; train on one process.")
        return [torch.optim.Adafactor(groups(named, {}), lr=lr, **options)]
    if plan.algorithm == "muon":
        # match_rms_adamw scales Muon's step to the size of AdamW's, so that one learning rate serves both.
        hidden = {n: p for n, p in named.items() if p.ndim == 2 and plan.hidden(n, p)}
        rest = {n: p for n, p in named.items() if n not in hidden}
        adamw = {k: options.pop(k) for k in ("betas", "eps") if k in options}
        muon = torch.optim.Muon(
            list(hidden.values()), lr=lr, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw", **options
        )
        return [muon, torch.optim.AdamW(groups(rest, {}), lr=lr, fused=True, **adamw)]
    raise UserError(f"There is no optimiser {plan.algorithm!r}; adamw, adam, sgd, lars, muon and adafactor exist.")
