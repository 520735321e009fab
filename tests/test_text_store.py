import json
import logging
import multiprocessing
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from scaledreamer.errors import UserError
from scaledreamer.priors.base import TextEncoding
from scaledreamer.priors.stable_diffusion import StableDiffusion
from scaledreamer.text import store as store_module
from scaledreamer.text.embedding import TextEmbedding
from scaledreamer.text.encode import LiveTextEncoder, embed, wordings
from scaledreamer.text.open import build_once, open_text_embeddings
from scaledreamer.text.settings import TextSettings
from scaledreamer.text.store import EmbeddingStore, StoreKey, fingerprint, write_store

TEMPLATES = ("{prompt}, side view", "{prompt}, front view")


class Encoder:
    """Embeds a text as numbers that name it: pooled [2] = (length, hash), tokens [3, 2] = pooled + (0, 1, 2)."""

    text_dim, text_length, fingerprint = 2, 3, "encoder"

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.reported: list[str] = []

    def encode_text(self, prompts, device=None) -> TextEncoding:
        self.encoded += prompts
        pooled = torch.tensor([self.of(p) for p in prompts]).view(-1, 2)
        return TextEncoding(pooled=pooled, tokens=pooled[:, None] + torch.arange(3.0)[None, :, None])

    @staticmethod
    def of(text: str) -> list[float]:
        return [float(len(text)), float(sum(text.encode()) % 997)]

    def report_cut(self, prompts) -> list[str]:
        self.reported += prompts
        return []


def opened(prompts, folder, encoder=None, templates=TEMPLATES, **options):
    return open_text_embeddings(prompts, encoder or Encoder(), templates, folder=folder, **options)


# -- rows ----------------------------------------------------------------------------------------------------------


def test_rows_hold_the_prompt_plain_and_in_each_wording(tmp_path):
    rows = opened(["a cat", "a dog"], tmp_path).rows([1, 0, 1])
    assert rows.pooled.tolist() == [Encoder.of(p) for p in ("a dog", "a cat", "a dog")]
    assert rows.tokens.shape == (3, 2, 3, 2)
    assert rows.tokens[1, 0, 0].tolist() == Encoder.of("a cat, side view")
    assert rows.tokens[1, 1, 0].tolist() == Encoder.of("a cat, front view")
    assert rows.tokens[1, 1, 2].tolist() == [v + 2 for v in Encoder.of("a cat, front view")]
    assert rows.pooled.dtype == rows.tokens.dtype == torch.float32


@pytest.mark.parametrize("budget", [8.0, 0.0])
def test_cut_texts_are_looked_for_where_somebody_hears_of_them(tmp_path, budget):
    encoder = Encoder()
    opened(["a cat"], tmp_path, encoder, budget_gb=budget)
    assert encoder.reported == ["a cat", "a cat, side view", "a cat, front view"]
    logging.disable(logging.WARNING)  # as of the processes of a run but the first
    try:
        opened(["a dog"], tmp_path, encoder, budget_gb=budget)
    finally:
        logging.disable(logging.NOTSET)
    assert len(encoder.reported) == 3


def test_templates_keep_their_order(tmp_path):
    ab = opened(["a"], tmp_path).rows([0]).tokens
    ba = opened(["a"], tmp_path, templates=TEMPLATES[::-1]).rows([0]).tokens
    assert torch.equal(ab, ba.flip(1))
    assert not torch.equal(ab, ba)


def test_each_text_is_encoded_once_and_never_again(tmp_path):
    encoder = Encoder()
    store = opened(["a", "b", "a"], tmp_path, encoder, templates=("{prompt}", "{prompt}", "{prompt}!"))
    assert sorted(encoder.encoded) == ["a", "a!", "b", "b!"]
    assert len(store) == 3
    assert store.rows([2]).pooled.tolist() == [Encoder.of("a")]
    again = Encoder()
    opened(["a", "b", "a"], tmp_path, again, templates=("{prompt}", "{prompt}", "{prompt}!"))
    assert again.encoded == []


def test_a_prompt_may_have_braces_and_a_template_must_have_the_prompt():
    assert wordings(["{x} {0}"], ["{prompt}!"]) == [["{x} {0}!"]]
    for template in ("a view", "{prompt} {view}", "{prompt} {", "{} {prompt}"):
        with pytest.raises(UserError, match="template"):
            wordings([], [template])


def test_store_and_live_encoder_give_the_same_numbers(tmp_path):
    prior = StableDiffusion(path="random:tiny")
    prompts = ["a corgi", "a squirrel riding a motorcycle", "a pig"]
    for dtype in ("float16", "float32"):
        stored = open_text_embeddings(prompts, prior, TEMPLATES, folder=tmp_path, dtype=dtype)
        live = open_text_embeddings(prompts, prior, TEMPLATES, folder=tmp_path, dtype=dtype, budget_gb=0)
        assert isinstance(stored, EmbeddingStore)
        assert isinstance(live, LiveTextEncoder)
        # float16 may round two neighbours apart where the encoder's own last bit depends on the batch.
        tolerance = {"float16": 2e-3, "float32": 1e-6}[dtype]
        for one in (live.rows([2, 0]), live(["a pig", "a corgi"])):
            torch.testing.assert_close(stored.rows([2, 0]).tokens, one.tokens, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(stored.rows([2, 0]).pooled, one.pooled, rtol=tolerance, atol=tolerance)
    exact = prior.encode_text(["a pig, side view"]).tokens[0]
    torch.testing.assert_close(stored.rows([2]).tokens[0, 0], exact, rtol=1e-6, atol=1e-6)


def test_live_embeddings_are_rounded_as_stored_ones_are():
    class Third(Encoder):
        def encode_text(self, prompts, device=None):
            out = super().encode_text(prompts)
            return TextEncoding(pooled=out.pooled / 3, tokens=out.tokens / 3)

    half = embed(["a"], Third(), TEMPLATES, dtype="float16").pooled
    assert half[0, 0] == 0.333251953125  # the float16 next to 1/3
    assert embed(["a"], Third(), TEMPLATES, dtype="float32").pooled[0, 0] == torch.tensor(1 / 3)


def test_a_batch_equals_its_samples(tmp_path):
    prior, prompts = StableDiffusion(path="random:tiny"), ["a corgi", "a pig"]
    together = embed(prompts, prior, TEMPLATES, dtype="float32")
    for i, prompt in enumerate(prompts):
        alone = embed([prompt], prior, TEMPLATES, dtype="float32")
        torch.testing.assert_close(together.tokens[i : i + 1], alone.tokens, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together.pooled[i : i + 1], alone.pooled, rtol=1e-6, atol=1e-6)


def test_live_embeddings_can_be_trained_on():
    text = LiveTextEncoder(StableDiffusion(path="random:tiny"), TEMPLATES)(["a corgi"])
    weight = torch.zeros(32, 1, requires_grad=True)
    (text.pooled @ weight).sum().backward()
    assert weight.grad.abs().sum() > 0


# -- the file ------------------------------------------------------------------------------------------------------


def test_fingerprint_changes_with_every_ingredient():
    base = (["a", "b"], TEMPLATES, "prior", "float16")
    others = [
        (["b", "a"], *base[1:]),
        (["a", "b", "c"], *base[1:]),
        (["ab"], *base[1:]),
        (["a"], TEMPLATES[::-1], *base[2:]),
        (*base[:2], "another", "float16"),
        (*base[:3], "float32"),
    ]
    prints = [fingerprint(*of) for of in (base, *others)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(*base) == prints[0]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: b"x" + data[1:],
        lambda data: data[:4100] + bytes([data[4100] ^ 1]) + data[4101:],
    ],
    ids=["cut", "cut in the header", "empty", "longer", "header", "one bit of a record"],
)
def test_a_damaged_file_is_built_anew_with_a_warning(harm, tmp_path, caplog):
    expected = opened(["a", "b"], tmp_path).rows([0, 1]).tokens
    (path,) = tmp_path.glob("*.embeddings")
    path.write_bytes(harm(path.read_bytes()))
    encoder = Encoder()
    with caplog.at_level(logging.WARNING):
        store = opened(["a", "b"], tmp_path, encoder)
    assert "is broken" in caplog.text
    assert str(path) in caplog.text
    assert encoder.encoded
    assert torch.equal(store.rows([0, 1]).tokens, expected)
    assert not list(tmp_path.glob("*.part"))


def test_damage_in_a_large_file_is_looked_for_in_a_sample(tmp_path, monkeypatch):
    store = opened([str(i) for i in range(100)], tmp_path)
    monkeypatch.setattr(store_module, "CHECKED_BYTES", 10 * store.key.record_bytes)
    with store.path.open("r+b") as file:  # the last record is always in the sample
        file.seek(store_module.HEADER_BYTES + 100 * store.key.record_bytes - 1)
        file.write(b"\xff")
    with pytest.raises(store_module.BrokenStoreError, match="record 99"):
        EmbeddingStore(store.path, store.key)


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    class Fails(Encoder):
        def encode_text(self, prompts, device=None):
            raise RuntimeError("out of memory")

    class Infinite(Encoder):
        def encode_text(self, prompts, device=None):
            out = super().encode_text(prompts)
            return TextEncoding(pooled=out.pooled / 0, tokens=out.tokens)

    with pytest.raises(RuntimeError, match="out of memory"):
        opened(["a"], tmp_path, Fails())
    with pytest.raises(UserError, match="not finite"):
        opened(["a"], tmp_path, Infinite())
    assert not list(tmp_path.glob("*.embeddings")) + list(tmp_path.glob("*.part"))


def test_only_the_rows_asked_for_are_read(tmp_path):
    store = opened([str(i) for i in range(50)], tmp_path)
    with store.path.open("r+b") as file:  # spoil all records but number 7
        for i in set(range(50)) - {7}:
            file.seek(store_module.HEADER_BYTES + i * store.key.record_bytes)
            file.write(np.full(store.key.elements, np.nan, dtype=np.float16).tobytes())
    rows = store.rows([7, 7])
    assert rows.tokens.isfinite().all()
    assert rows.tokens.untyped_storage().nbytes() <= 4 * 2 * store.key.elements
    assert store.rows([8]).tokens.isnan().all()  # opened before: the file is read, not memory


def test_rows_take_tensors_and_lists_and_refuse_what_is_not_there(tmp_path):
    store = opened(["a", "b"], tmp_path)
    assert torch.equal(store.rows(torch.tensor([1])).pooled, store.rows([1]).pooled)
    assert store.rows([]).tokens.shape == (0, 2, 3, 2)
    with pytest.raises(IndexError):
        store.rows([2])


def test_store_survives_pickling_and_a_dataloader_s_workers(tmp_path):
    from torch.utils.data import DataLoader, Dataset

    store = opened([str(i) for i in range(500)], tmp_path)
    store.rows([0])  # maps the file
    assert len(pickle.dumps(store)) < 8 * 500 + 1000  # the places of the rows, without the 14 kB of the rows
    assert torch.equal(pickle.loads(pickle.dumps(store)).rows([2]).tokens, store.rows([2]).tokens)

    class Rows(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return store.rows([i]).pooled[0]

    got = torch.stack(list(DataLoader(Rows(), batch_size=None, num_workers=2)))
    assert torch.equal(got, store.rows([0, 1, 2]).pooled)


def test_memory_of_writing_and_reading_does_not_grow_with_the_corpus(tmp_path):
    def peak(count: int) -> tuple[int, int]:
        key = StoreKey(fingerprint=str(count), rows=count, templates=4, length=16, width=64, dtype="float16")
        batch = TextEmbedding(pooled=torch.randn(4, 64), tokens=torch.randn(4, 4, 16, 64))
        tracemalloc.start()
        write_store(tmp_path / str(count), key, (batch for _ in range(count // 4)))
        store = EmbeddingStore(tmp_path / str(count), key)
        for i in range(count):
            store.rows([i])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, key.file_bytes

    peak(4)  # what is imported at first use
    (small, _), (large, size) = peak(16), peak(1024)
    assert size > 8e6
    assert large - small < 0.05 * size


# -- budget, disk --------------------------------------------------------------------------------------------------


def test_budget_decides(tmp_path):
    encoder = Encoder()
    key = opened(["a", "b"], tmp_path, encoder).key
    # By hand: 4096 + 2 records of 2 * (1 + 2 * 3) float16 and a checksum each.
    assert key.file_bytes == 4096 + 2 * (14 * 2 + 4)
    (path,) = tmp_path.glob("*.embeddings")
    assert path.stat().st_size == key.file_bytes
    exactly = key.file_bytes / 1e9
    assert isinstance(opened(["a", "b"], tmp_path, budget_gb=exactly), EmbeddingStore)
    assert isinstance(opened(["a", "b"], tmp_path, budget_gb=0.99 * exactly), LiveTextEncoder)
    assert len(encoder.reported) == len(set(encoder.reported)) == 2 * (1 + len(TEMPLATES))  # every text, at once
    settings = TextSettings(budget_gb=0)
    assert settings.open(["a"], Encoder(), TEMPLATES) is None
    assert settings.live(Encoder(), TEMPLATES)(["a"]).pooled.tolist() == [Encoder.of("a")]
    assert settings.encode(["a"], Encoder(), TEMPLATES).pooled.tolist() == [Encoder.of("a")]


def test_cp100k_with_every_wording_is_beyond_the_default_budget():
    key = StoreKey(fingerprint="", rows=100_000, templates=4, length=77, width=1024, dtype="float16")
    assert key.file_bytes == pytest.approx(63.3e9, rel=0.01)


def test_stores_are_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    store = open_text_embeddings(["a"], Encoder(), TEMPLATES)
    assert store.path.parent == tmp_path / "text"


def test_no_room_and_no_folder_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"SCALEDREAMER_DATA.*text.budget_gb=0"):
        opened(["a"], tmp_path / "file" / "folder")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="GB are free; make room"):
        opened(["a"], tmp_path)


# -- several processes ---------------------------------------------------------------------------------------------


def _open_slowly(folder: Path, barrier, results) -> None:
    class Slow(Encoder):
        def encode_text(self, prompts, device=None):
            time.sleep(0.3)
            return super().encode_text(prompts)

    encoder = Slow()
    barrier.wait()
    store = open_text_embeddings(["a", "b"], encoder, TEMPLATES, folder=folder)
    results.put((len(encoder.encoded), store.rows([1]).pooled.tolist()))


def test_one_of_several_processes_builds_and_all_read(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_open_slowly, args=(tmp_path, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    got = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(count for count, _ in got) == [0, 0, 6]
    assert all(pooled == [Encoder.of("b")] for _, pooled in got)


def _hold(path: str, ready, release) -> None:
    with FileLock(path):
        ready.set()
        release.wait(60)


def test_waiting_ends_with_an_error_when_the_other_makes_no_progress(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    path = tmp_path / "x.embeddings"
    holder = context.Process(target=_hold, args=(f"{path}.lock", ready, release))
    holder.start()
    try:
        assert ready.wait(60)
        start = time.monotonic()
        with pytest.raises(UserError, match=r"waited 0 s for another process to write .*x.embeddings"):
            build_once(path, load=lambda: None, build=lambda: None, patience=0.3, poll=0.1)
        assert 0.3 < time.monotonic() - start < 10
        grown = tmp_path / "x.embeddings.other-1.part"
        grown.write_bytes(b"1")
        start = time.monotonic()
        with pytest.raises(UserError, match="without progress"):  # a file that grew once buys time once
            build_once(path, load=lambda: None, build=lambda: None, patience=0.3, poll=0.1)
        assert grown.exists()
    finally:
        release.set()
        holder.join(timeout=60)


def test_a_header_is_readable(tmp_path):
    store = opened(["a"], tmp_path)
    header = json.loads(store.path.read_bytes()[: store_module.HEADER_BYTES])
    assert header["format"] == "scaledreamer text embeddings"
    assert (header["rows"], header["templates"], header["length"], header["width"]) == (1, 2, 3, 2)
