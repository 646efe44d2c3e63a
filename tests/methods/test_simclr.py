import math

import pytest
import torch

from unlabeled.core.batch import Record, Spec
from unlabeled.core.clock import Clock
from unlabeled.core.config import resolve
from unlabeled.methods.simclr import SimCLR

SPEC = Spec(kind="image", image_size=16, channels=3)


def tiny(channels: int = 3, **overrides) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(resolve(SimCLR, "tiny", overrides), Spec(kind="image", image_size=16, channels=channels))


def batch(n: int = 8, channels: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randint(0, 256, (n, 16, 16, channels), dtype=torch.uint8)}


def test_official_parameter_counts():
    with torch.device("meta"):
        method = SimCLR(SimCLR.Config(), SPEC)
    assert sum(p.numel() for p in method.encoder.parameters()) == 23_508_032
    assert sum(p.numel() for p in method.projector.parameters()) == 4_460_672


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_two_of_each_image(channels):
    method = tiny(channels)
    views = method.transform(batch(channels=channels), Clock())["views"]
    assert views.shape == (8, 2, channels, 16, 16) and views.min() >= 0 and views.max() <= 1
    assert not torch.equal(views[:, 0], views[:, 1])


def test_both_views_of_an_image_stay_beside_it():
    # With every random operation off, the two views are the image itself.
    method = tiny(crop_area=(1.0, 1.0), jitter=0.0)
    images = batch()["image"]
    images[:] = images[:, :1, :1]  # one colour each: cropping and flipping change nothing
    views = method.transform({"image": images}, Clock())["views"]
    grey = (images.permute(0, 3, 1, 2)[:, None] / 255 - views).abs().amax((1, 2, 3, 4))
    kept = grey < 1e-5  # the others were turned grey
    assert kept.any()
    for view in (0, 1):
        expected = (images[kept].permute(0, 3, 1, 2) / 255).float()
        torch.testing.assert_close(views[kept, view], expected, atol=1e-5, rtol=0)


def test_equal_features_give_the_trivial_loss():
    method = tiny()
    torch.nn.init.zeros_(method.projector[-1].weight)
    views = method.transform(batch(), Clock())
    assert method.loss(views, "main", Clock()).loss.item() == pytest.approx(math.log(15), abs=1e-5)


def test_golden_values_of_the_loss_and_its_logs():
    # Sheet of vision, 7.1: a = sin(n^2), b = a + 0.3 cos(n^2 + n), 4 x 8; T is 0.5 in the tiny variant.
    n = torch.arange(32, dtype=torch.float64)
    a = torch.sin(n**2).view(4, 8)
    b = a + 0.3 * torch.cos(n**2 + n).view(4, 8)
    method = tiny()
    method.encoder = method.projector = torch.nn.Identity()
    outcome = method.loss({"views": torch.stack([a, b], 1).float()}, "main", Clock())
    assert outcome.loss.item() == pytest.approx(0.7258114930, abs=1e-5)
    assert outcome.logs["alignment"].item() == pytest.approx(0.0918081980, abs=1e-5)
    assert outcome.logs["uniformity"].item() == pytest.approx(-3.3164408206, abs=1e-5)
    spread = (a / a.norm(dim=1, keepdim=True)).std(0).mean() * 8**0.5
    assert outcome.logs["spread"].item() == pytest.approx(spread.item(), abs=1e-5)


def test_both_views_are_normalised_by_the_statistics_of_one_batch():
    method, seen = tiny(), []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    method.loss(method.transform(batch(), Clock()), "main", Clock())
    assert seen == [16]


def test_the_learning_rate_grows_with_the_batch():
    peak = tiny(batch=512).optimizers()["main"].lr.peak
    assert peak == pytest.approx(2 * tiny(batch=256).optimizers()["main"].lr.peak)
    paper = SimCLR.Config()
    assert paper.lr * paper.batch / 256 == pytest.approx(4.8)


def test_embeddings_are_the_encoders_and_do_not_move_batch_statistics():
    method = tiny().eval()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    features = method.embed(batch())
    assert features.shape == (8, method.encoder.width) and features.requires_grad  # for fine-tuning
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_records_of_any_size_are_brought_to_the_size_of_the_views():
    image = (torch.rand(40, 30, 3) * 255).byte().numpy()
    prepared = tiny().prepare(Record("a", {"image": image}), None)
    assert prepared["image"].shape == (16, 16, 3) and prepared["image"].dtype == "uint8"
