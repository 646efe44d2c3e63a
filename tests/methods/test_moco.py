import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.parallel.processes import on_processes
from unlabeled.core.batch import Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.core.errors import UserError
from unlabeled.core.method import Outcome
from unlabeled.engine.optimise import parts_of
from unlabeled.methods.moco import MoCo
from unlabeled.objectives.contrast import info_nce
from unlabeled.parallel.world import rank, world


def tiny(channels: int = 3, **overrides) -> MoCo:
    torch.manual_seed(0)
    return MoCo(resolve(MoCo, "tiny", overrides), Spec(kind="image", image_size=16, channels=channels))


def views(n: int = 16, side: int = 16) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(n, 2, 3, side, side)


@torch.no_grad()
def put(method: MoCo, *keys: torch.Tensor) -> None:
    method.after_update("main", [Outcome(torch.zeros(()), carry={"keys": k}) for k in keys], Clock())


@pytest.mark.parametrize(("variant", "count"), [("v1", 23_770_304), ("v2", 27_966_656)])
def test_official_parameter_counts(variant, count):
    with torch.device("meta"):
        method = MoCo(resolve(MoCo, variant), Spec(kind="image", image_size=224, channels=3))
    for names in (("encoder", "projector"), ("key_encoder", "key_projector")):
        assert sum(p.numel() for name in names for p in getattr(method, name).parameters()) == count
    assert method.queue.shape == (65_536, 128)


# Sheet of vision, 7.1: a = sin(n^2), b = a + 0.3 cos(n^2 + n), 4 x 8; the queue is the columns of cos(m), 8 x 6.
N = torch.arange(32, dtype=torch.float64)
A = torch.sin(N**2).view(4, 8)
B = A + 0.3 * torch.cos(N**2 + N).view(4, 8)
QUEUE = F.normalize(torch.cos(torch.arange(48, dtype=torch.float64)).view(8, 6), dim=0).T


@pytest.mark.parametrize(("temperature", "expected"), [(0.07, 0.0043529817), (0.2, 0.1711518622)])
def test_golden_values(temperature, expected):
    loss, _ = info_nce(F.normalize(A, dim=1), F.normalize(B, dim=1), QUEUE, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    method = tiny(temperature=temperature, normalisation="synchronised")
    method.encoder = method.key_encoder = nn.Identity()
    method.projector, method.key_projector = (nn.Linear(8, 8, bias=False) for _ in range(2))
    with torch.no_grad():
        for head in (method.projector, method.key_projector):
            head.weight.copy_(torch.eye(8))
    method.queue = QUEUE.float()
    outcome = method.loss({"views": torch.stack([A, B], 1).float()}, "main", Clock())
    assert outcome.loss.item() == pytest.approx(expected, abs=1e-5)


def test_with_the_keys_of_the_batch_as_candidates_it_is_info_nce():
    q, k = F.normalize(A, dim=1).requires_grad_(), F.normalize(B, dim=1)
    others = [torch.cat([k[:i], k[i + 1 :]]) for i in range(4)]
    loss = torch.stack([info_nce(q[i : i + 1], k[i : i + 1], others[i], 0.3)[0] for i in range(4)]).mean()
    torch.testing.assert_close(loss, F.cross_entropy(q @ k.T / 0.3, torch.arange(4)))


def test_nothing_learned_is_guessing_among_all():
    q = F.normalize(torch.ones(5, 8), dim=1)
    assert info_nce(q, q, q[:1].expand(40, 8), 0.07)[0].item() == pytest.approx(math.log(41), abs=1e-5)


class Reference:
    """The authors' pseudo-code (algorithm 1), with a convolutional network of torch's own layers whose batch
    normalisation is that of devices apart, and keys dealt out to them."""

    def __init__(self, method: MoCo) -> None:
        config = method.config
        self.config, self.pointer, self.queue = config, 0, method.queue.T.clone()
        widths, layers = (3, *config.conv_widths), []
        for i in range(4):
            conv = nn.Conv2d(widths[i], widths[i + 1], 3, 2 if i else 1, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(widths[i + 1]), nn.ReLU()]
        head = [nn.Linear(widths[-1], config.projector[0]), nn.ReLU(), nn.Linear(*config.projector)]
        mean = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.f_q = nn.Sequential(*layers, *mean, *head)
        self.f_k = deepcopy(self.f_q)
        for net in (self.f_q, self.f_k):
            with torch.no_grad():
                for mine, theirs in zip(
                    net.parameters(), [*method.encoder.parameters(), *method.projector.parameters()]
                ):
                    mine.copy_(theirs)
        self.optimizer = torch.optim.SGD(self.f_q.parameters(), config.lr, momentum=0.9, weight_decay=1e-4)

    def apart(self, net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([net(part) for part in x.chunk(self.config.groups)])

    def step(self, x_q: torch.Tensor, x_k: torch.Tensor) -> float:
        config, n = self.config, len(x_q)
        q = F.normalize(self.apart(self.f_q, x_q), dim=1)
        with torch.no_grad():
            for p_k, p_q in zip(self.f_k.parameters(), self.f_q.parameters()):
                p_k.copy_(config.key_momentum * p_k + (1 - config.key_momentum) * p_q)
            shuffle = torch.cat([torch.arange(n)[first :: config.groups] for first in range(config.groups)])
            k = F.normalize(self.apart(self.f_k, x_k[shuffle]), dim=1)[shuffle.argsort()]
        positive = torch.einsum("nc,nc->n", q, k)[:, None]
        negative = torch.einsum("nc,ck->nk", q, self.queue)
        logits = torch.cat([positive, negative], 1) / config.temperature
        loss = F.cross_entropy(logits, torch.zeros(n, dtype=torch.long))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.queue[:, self.pointer : self.pointer + n] = k.T
        self.pointer = (self.pointer + n) % self.queue.shape[1]
        return loss.item()


def test_steps_are_those_of_the_pseudo_code():
    method = tiny(queue=32, key_momentum=0.7).train()
    part, reference = parts_of(method)["main"], Reference(method)
    clock = Clock(step=1, steps=1000)
    for step in range(4):
        torch.manual_seed(step)
        x = torch.randn(16, 2, 3, 16, 16)
        outcome = method.loss({"views": x}, "main", clock)
        outcome.loss.backward()
        gradients = [p.grad.clone() for p in part.named.values()]
        part.step(clock)
        assert outcome.loss.item() == pytest.approx(reference.step(x[:, 0], x[:, 1]), abs=1e-4)
        for mine, theirs in zip(gradients, reference.f_q.parameters()):
            torch.testing.assert_close(mine, theirs.grad, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            method.after_update("main", [outcome], clock)
        torch.testing.assert_close(method.queue, reference.queue.T, atol=1e-4, rtol=1e-4)
        for mine, theirs in zip(part.named.values(), reference.f_q.parameters()):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert int(method.pointer) == reference.pointer == 0


@pytest.mark.parametrize(
    ("size", "batches"), [(40, (16, 16, 16, 16)), (10, (16, 16)), (7, (3, 2, 2, 3)), (16, (16, 16))]
)
def test_the_queue_holds_the_last_keys_whatever_divides_what(size, batches):
    method = tiny(queue=size)
    everything = F.normalize(torch.randn(sum(batches), 32), dim=1)
    for keys in everything.split(batches):
        put(method, *keys.split(2))  # in microbatches
    held = method.queue.roll(-int(method.pointer), 0)[-min(size, sum(batches)) :]  # oldest first
    torch.testing.assert_close(held, everything[-size:], atol=0, rtol=0)


def test_keys_carry_no_gradient_and_the_key_encoder_follows_all_of_the_query_encoder():
    method = tiny(key_momentum=0.9).train()
    part = parts_of(method)["main"]
    before = {n: p.clone() for n, p in method.named_parameters()}
    outcome = method.loss({"views": views()}, "main", Clock())
    outcome.loss.backward()
    assert not outcome.carry["keys"].requires_grad
    torch.testing.assert_close(outcome.carry["keys"].norm(dim=1), torch.ones(16))
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("key_"))
    part.step(Clock(step=1, steps=1000))
    put(method, outcome.carry["keys"])
    for name, weight in method.named_parameters():
        if name.startswith("key_"):
            now = dict(method.named_parameters())[name.removeprefix("key_")]
            torch.testing.assert_close(weight, 0.9 * before[name] + 0.1 * now)
            assert not torch.equal(now, before[name])


def test_keys_stay_where_they_are_with_momentum_one():
    method = tiny(key_momentum=1.0)
    with torch.no_grad():
        method.encoder.layers[0].weight.add_(1)
    before = [p.clone() for p in method.key_encoder.parameters()]
    put(method, torch.randn(4, 32))
    assert all(torch.equal(a, b) for a, b in zip(before, method.key_encoder.parameters()))


def test_normalisation_in_groups_and_what_it_keeps():
    method = tiny(normalisation="plain").train()
    x = views()[:, 0]
    both, alone = method.encoder(x), method.encoder(x[:4].repeat(4, 1, 1, 1))
    torch.testing.assert_close(both[:4], alone[:4])  # whatever the other groups are
    first, second = nn.BatchNorm2d(3, momentum=1.0), nn.BatchNorm2d(3, momentum=1.0)
    norm = type(method.encoder.layers[1])(3)
    norm.groups, norm.momentum = 2, 1.0
    first(x[:8]), second(x[8:]), norm(x)
    torch.testing.assert_close(norm.running_var, (first.running_var + second.running_var) / 2)
    torch.testing.assert_close(norm.running_mean, (first.running_mean + second.running_mean) / 2)


def without_content(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of which seven in eight hold nothing but noise, other noise in each view, so that their keys can be told
    by what stands beside them alone; and which ones hold more."""
    marked = torch.rand(n) < 1 / 8
    level = torch.where(marked, 4.0, 0.0).view(n, 1, 1, 1, 1) * torch.randn(n, 1, 3, 1, 1)
    return torch.randn(n, 2, 3, 8, 8) + level, marked


def careless(normalisation: str) -> MoCo:
    return tiny(normalisation=normalisation, batch=64, groups=8, queue=512).train()


def told_by_statistics(method: MoCo, batches: int = 10) -> tuple[float, float]:
    """How often the query of an image without content is nearer to its own key than to a key without content of another
    batch that the same weights made (0.5 is chance); and the leak that is logged."""
    torch.manual_seed(9)
    told, leaks = [], []
    mine = slice(rank() * 64 // world(), (rank() + 1) * 64 // world())
    with torch.no_grad():
        for _ in range(batches):
            (x, marked), (other, marked_other) = ((x[mine], m[mine]) for x, m in (without_content(64) for _ in "ab"))
            outcome = method.loss({"views": x}, "main", Clock())
            elsewhere = method.loss({"views": other}, "main", Clock()).carry["keys"][~marked_other]
            q = F.normalize(method.projector(method.encoder(x[:, 0])), dim=1)
            nearer = (q * outcome.carry["keys"]).sum(1, keepdim=True) > q @ elsewhere.T
            told.append(nearer[~marked].float().mean().item())
            leaks.append(outcome.logs["leak"].item())
    return sum(told) / batches, sum(leaks) / batches


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the weights of one method for each normalisation, trained on images without content."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("plain", "synchronised", "shuffled"):
        method, clock = careless(name), Clock(step=1, steps=1000)
        with torch.no_grad():
            method.first_batch({"views": without_content(64)[0]})
        part = parts_of(method)["main"]
        for _ in range(150):
            outcome = method.loss({"views": without_content(64)[0]}, "main", clock)
            outcome.loss.backward()
            part.step(clock)
            put(method, outcome.carry["keys"])
        torch.save(method.state_dict(), folder / f"{name}.pt")
    return folder


def _told(folder: Path) -> dict[str, tuple[float, float]]:
    found = {}
    for name in ("plain", "synchronised", "shuffled"):
        method = careless(name)
        method.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        found[name] = told_by_statistics(method)
    return found


def test_statistics_solve_the_task_unless_keys_are_shuffled(trained):
    found = _told(trained)
    assert found["plain"][0] > 0.6 and abs(found["shuffled"][0] - 0.5) < 0.05
    assert found["synchronised"][0] < found["plain"][0]  # a large group tells less about its rows
    assert found["plain"][1] > 0.15 > abs(found["shuffled"][1])
    row = {"loss": 3.0, "contrast_accuracy": 0.5, "spread": 0.5, "lag": 0.1, "examples": 999}
    for name, healthy in (("plain", False), ("shuffled", True)):
        finding = {f.name: f for f in tiny().diagnose([row | {"leak": found[name][1]}])}
        assert finding["likeness of keys normalised together"].healthy == healthy


def _told_here(folder: Path) -> None:
    torch.save(_told(folder), folder / f"told-{rank()}.pt")


def test_and_so_they_do_on_two_processes(trained):
    on_processes(2, _told_here, trained)
    parts, one = [torch.load(trained / f"told-{r}.pt", weights_only=True) for r in (0, 1)], _told(trained)
    both = {name: (parts[0][name][0] + parts[1][name][0]) / 2 for name in one}
    assert both["plain"] > 0.6 and abs(both["shuffled"] - 0.5) < 0.05
    # Not exactly, since the halves hold different numbers of images without content.
    assert all(both[name] == pytest.approx(one[name][0], abs=0.02) for name in one)


def diagnosed(steps: int = 40, **overrides) -> dict[str, bool]:
    """Which findings are healthy after a short run on waves of many directions."""
    method, clock, history = tiny(**overrides).train(), Clock(step=1, steps=1000), []
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    angle, phase = torch.rand(2, 96, 1, 1) * 6.3
    images = 1 + torch.sin((angle.cos() * row + angle.sin() * column) * 0.8 + phase)
    images = (127 * images).byte()[..., None].repeat(1, 1, 1, 3)
    part = None
    for step in range(steps):
        batch = method.transform({"image": images[torch.randperm(96)[:16]]}, clock)
        if part is None:
            with torch.no_grad():
                method.first_batch(batch)
            part = parts_of(method)["main"]
        outcome = method.loss(batch, "main", clock)
        outcome.loss.backward()
        part.step(clock)
        put(method, outcome.carry["keys"])
        logs = {k: v.item() for k, v in outcome.logs.items()}
        history.append(logs | {"loss": outcome.loss.item(), "examples": 16 * (step + 1)})
    return {f.name: f.healthy for f in method.diagnose(history)}


def test_a_healthy_run_is_called_so_and_failures_are_named():
    assert all(diagnosed().values())
    assert not diagnosed(key_momentum=0.0)["lag of the key encoder"]
    assert not diagnosed(temperature=1e-3)["loss, as a share of guessing"]
    assert not diagnosed(queue=2000, queue_start="random", steps=5)["queue filled"]


def test_views_are_two_of_each_image_and_normalised():
    for channels in (1, 3):
        method = tiny(channels)
        images = torch.full((8, 16, 16, channels), 115, dtype=torch.uint8)
        made = method.transform({"image": images}, Clock())["views"]
        assert made.shape == (8, 2, channels, 16, 16)
        still = tiny(channels, jitter=(0.0, 0.0, 0.0, 0.0), crop_area=(1.0, 1.0)).transform({"image": images}, Clock())
        assert still["views"].abs().max() < 0.25  # 115 is near ImageNet's mean


def test_the_staircase_of_version_1():
    plan = tiny(decay="steps", lr=0.03).optimizers()["main"]
    rates = [plan.lr(Clock(progress=p)) for p in (0.0, 0.59, 0.6, 0.79, 0.8, 1.0)]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])
    assert all(plan.decays(n, p) for n, p in tiny().named_parameters())


def test_embeddings_are_the_query_encoders():
    method = tiny().eval()
    batch = {"image": torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)}
    before = method.embed(batch)
    assert before.shape == (8, method.encoder.width) and before.requires_grad
    with torch.no_grad():
        for p in method.key_encoder.parameters():
            p.zero_()
    assert torch.equal(method.embed(batch), before)


def test_groups_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UserError, match="--groups"):
        tiny(groups=3)
    with pytest.raises(UserError, match="--queue"):
        tiny(queue=0)
