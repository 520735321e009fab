"""The stream of prompts: epochs, shards, and going on after a checkpoint in a real Lightning run."""

import itertools

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from scaledreamer.corpora.datamodule import PromptDataModule
from scaledreamer.corpora.dataset import PromptBatch, PromptDataset
from scaledreamer.corpora.sampler import PromptSampler, epoch_order
from scaledreamer.errors import UserError
from scaledreamer.text.embedding import TextEmbedding


def batches(n: int, **arguments) -> list[list[int]]:
    return list(itertools.islice(PromptSampler(**{"seed": 0, **arguments}), n))


def flat(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_epochs_are_permutations_of_seed_and_epoch():
    orders = [epoch_order(size=50, seed=s, epoch=e).tolist() for s in (0, 1) for e in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    before = torch.random.get_rng_state()
    assert epoch_order(size=50, seed=0, epoch=0).tolist() == orders[0]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_run_through_one_epoch_after_another():
    stream = flat(batches(7, size=5, batch_size=2))
    expected = flat(epoch_order(size=5, seed=0, epoch=e).tolist() for e in range(3))
    assert stream == expected[:14]


@pytest.mark.parametrize(
    ("size", "batch_size", "world_size"), [(10, 2, 2), (7, 3, 4), (3, 5, 2), (1, 2, 3), (100, 4, 8)]
)
def test_ranks_share_the_batches_of_one(size, batch_size, world_size):
    one = batches(9, size=size, batch_size=batch_size * world_size)
    ranks = [
        batches(9, size=size, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert [flat(step) for step in zip(*ranks, strict=True)] == one


def test_goes_on_with_another_number_of_ranks():
    unbroken = flat(batches(12, size=7, batch_size=4))
    first = flat(batches(3, size=7, batch_size=4))
    ranks = [batches(6, size=7, batch_size=2, rank=rank, world_size=3, start=12) for rank in range(3)]
    assert first + flat(flat(step) for step in zip(*ranks, strict=True)) == unbroken


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch_size": 0}, {"rank": 1}, {"start": -1}])
def test_out_of_range(wrong):
    with pytest.raises(ValueError, match="out of range"):
        PromptSampler(**{"size": 3, "batch_size": 1, "seed": 0, **wrong})


class Table:
    """Embeddings whose numbers are the prompt's index."""

    def rows(self, indices):
        index = torch.tensor(indices, dtype=torch.float32)
        return TextEmbedding(pooled=index[:, None].expand(-1, 4), tokens=index[:, None, None, None].expand(-1, 2, 3, 4))


PROMPTS = [f"prompt {i}" for i in range(7)]


def test_batches_carry_their_embeddings():
    batch = PromptDataset(prompts=PROMPTS, embeddings=Table()).__getitems__([4, 1])
    assert batch.prompts == ["prompt 4", "prompt 1"]
    assert batch.index.tolist() == [4, 1]
    assert batch.index.dtype == torch.int64
    assert batch.text is not None
    assert batch.text.tokens[:, 0, 0, 0].tolist() == [4, 1]
    moved = batch.to("meta")
    assert moved.index.is_meta
    assert moved.text is not None
    assert moved.text.pooled.is_meta
    assert PromptDataset(prompts=PROMPTS, embeddings=None)[2].text is None


class Recorder(LightningModule):
    """Notes which prompts each step saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def training_step(self, batch: PromptBatch, batch_idx: int):
        assert batch.text is not None
        assert batch.text.pooled[:, 0].tolist() == batch.index.tolist()
        self.seen += batch.index.tolist()
        return self.weight * batch.text.pooled.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves a checkpoint at the end of the batch that completes a step."""

    def __init__(self, step: int, path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def module(**other) -> PromptDataModule:
    return PromptDataModule(**{"prompts": PROMPTS, "embeddings": Table(), "batch_size": 2, "seed": 3, **other})


def fit(data, steps, callbacks=(), checkpoint=None, **other) -> list[int]:
    model = Recorder()
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", callbacks=list(callbacks), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, barebones=False, **other,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=checkpoint)
    return model.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("num_workers", "accumulate"), [(0, 1), (2, 1), (0, 2)])
def test_resumed_run_sees_what_the_unbroken_run_sees(tmp_path, num_workers, accumulate):
    path = tmp_path / "at3.ckpt"
    options = {"accumulate_grad_batches": accumulate}
    unbroken = fit(module(num_workers=num_workers), 6, [SaveAt(3, path)], **options)
    assert unbroken == flat(batches(6 * accumulate, size=7, batch_size=2, seed=3))
    state = torch.load(path, weights_only=True)["PromptDataModule"]
    assert state["samples_seen"] == 3 * 2 * accumulate  # not what the workers have fetched ahead
    again = tmp_path / "at4.ckpt"
    resumed = fit(module(num_workers=num_workers), 6, [SaveAt(4, again)], checkpoint=path, **options)
    assert resumed == unbroken[len(unbroken) // 2 :]
    assert torch.load(again, weights_only=True)["PromptDataModule"]["samples_seen"] == 4 * 2 * accumulate
    if num_workers == 0:  # once more from the resumed run's own checkpoint, with another batch size
        last = fit(module(batch_size=1), 6, checkpoint=again, **options)
        assert last == unbroken[8 * accumulate : 10 * accumulate]


@pytest.mark.filterwarnings("ignore")
def test_lightning_epochs_do_not_begin_anew():
    seen = fit(module(), 6, limit_train_batches=2)
    assert seen == flat(batches(6, size=7, batch_size=2, seed=3))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"prompts": PROMPTS[:-1]}, "another corpus .size 7, now 6."),
        ({"prompts": [*PROMPTS[:-1], "new"]}, "another corpus .prompts"),
        ({"seed": 4}, "another seed .seed 3, now 4."),
    ],
)
def test_checkpoint_of_another_corpus_or_seed(other, message):
    with pytest.raises(UserError, match=message):
        module(**other).load_state_dict(module().state_dict())
