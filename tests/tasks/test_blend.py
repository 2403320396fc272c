"""The blend's schedule, and the callback in a real Trainer."""

import pytest
import timm
import torch

from elastic_cnn import elasticize
from elastic_cnn.nn import Branch
from elastic_cnn.tasks.blend import Blend

lightning = pytest.importorskip("lightning.pytorch")


def test_blend_is_zero_then_linear_then_one():
    assert [Blend(0.25, 0.75).at(done) for done in (0, 0.25, 0.5, 0.625, 0.75, 1)] == [0, 0, 0.5, 0.75, 1, 1]
    assert [Blend(0, 0).at(done) for done in (0, 1)] == [1, 1]
    with pytest.raises(ValueError, match=r"start=0\.9"):
        Blend(0.9, 0.5)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        kwargs = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 8, "num_classes": 2}
        self.network = elasticize(timm.create_model("resnet18", **kwargs))
        self.seen = []

    def training_step(self, batch):
        self.seen += [module.blend for module in self.network.modules() if isinstance(module, Branch)][1:2]
        return self.network(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(8, 3, 32, 32), batch_size=2)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers
def test_callback_moves_every_low_branch():
    from elastic_cnn.tasks.callbacks import BlendSchedule

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[BlendSchedule(0, 0.5)],
    )  # fmt: skip
    trainer.fit(module)
    assert module.seen == [0, 0.5, 1, 1]
    assert {branch.blend for branch in module.network.modules() if isinstance(branch, Branch)} == {1.0}


def test_a_recipe_blends_over_its_run_and_tests_what_will_be_used(recipe_path, photos, tmp_path, monkeypatch):
    from elastic_cnn.tasks import loop
    from elastic_cnn.tasks.settings import Settings
    from elastic_cnn.tasks.training import load_recipe, train
    from elastic_cnn.zoo.checkpoint import load_checkpoint

    seen = []
    monkeypatch.setattr(loop, "set_blend", lambda network, blend: seen.append(blend))
    overrides = ["epochs=2", "network=resnext_small_elastic", "blend={start: 0.0, end: 0.5}"]
    recipe = load_recipe(recipe_path, overrides)
    assert recipe.blend == Blend(0.0, 0.5)
    summary = train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu"))
    steps = summary.steps // 2  # an epoch
    rising = [step / steps for step in range(steps)]
    assert seen == [*rising, 1, *([1] * steps), 1]  # after each epoch, the validation at 1
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    network, _ = load_checkpoint(tmp_path / "run")
    assert {branch.blend for branch in network.modules() if isinstance(branch, Branch)} == {1.0}
