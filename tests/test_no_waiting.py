"""The host launches the work of a training step, and waits for none of it."""

import pytest
import torch
from lightning.pytorch import Callback
from runs import SMALL, prepared


class Strict(Callback):
    """From the third step on, whoever waits for the device within a step is in error."""

    steps = 0

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step >= 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *_):
        torch.cuda.set_sync_debug_mode("default")
        self.steps += 1


@pytest.mark.gpu
@pytest.mark.parametrize("logged", [1, 100])
def test_no_step_waits_for_the_gpu(tmp_path, logged):
    """Neither do those whose figures are logged, which are read when the step is done."""
    (tmp_path / "prompts.txt").write_text("a ball\na cup")
    few = ["corpus.batch_size=2", "trainer.max_steps=5", f"trainer.log_every_n_steps={logged}"]
    quiet = ["callbacks.previews=null", "callbacks.checkpoints=null"]
    run, _ = prepared([*SMALL, "trainer=gpu", *few, *quiet, f"corpus.path={tmp_path}/prompts.txt"], tmp_path / "run")
    strict = Strict()
    run.trainer.callbacks.insert(0, strict)
    try:
        run.trainer.fit(run.system, datamodule=run.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.steps == 5
