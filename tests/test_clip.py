"""CLIP: its files, what it is shown, and the measures of its features by hand."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from clips import SIDE, write_tiny_clip
from torch import Tensor

from scaledreamer.clip import measures
from scaledreamer.clip.files import PATTERNS, PICKLE, find
from scaledreamer.clip.measures import Texts, consistency, janus, measure, ranks, similarity, views_from_behind
from scaledreamer.clip.model import Clip
from scaledreamer.errors import UserError
from scaledreamer.toybox.judge import FOLDER, Judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder) -> Clip:
    return Clip(folder)


def at(*degrees: float) -> Tensor:
    """Unit vectors of the plane [..., 2] by their angles."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


# -- measures, in the plane --------------------------------------------------------------------------------------


def test_ranks_by_hand():
    gallery = at(0, 20, 50, 100)
    seen = at(5, 15, 90, 0)
    own = torch.tensor([0, 0, 1, 3])
    # To 5 degrees 0 is nearest; to 15 20 is, then 0; to 90 100, 50, then 20; to 0 100 is the farthest.
    assert ranks(seen, gallery[own], gallery, own).tolist() == [0, 1, 2, 3]


def test_a_text_that_is_not_in_the_gallery_is_ranked_among_it_and_itself():
    gallery, seen = at(0, 50, 100), at(15, 15)
    assert ranks(seen, at(20, 40), gallery, torch.tensor([-1, -1])).tolist() == [0, 1]


def test_ties_and_what_is_no_number_count_against():
    gallery = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert ranks(gallery[:1], gallery[:1], gallery, torch.tensor([0])).tolist() == [1]
    broken = torch.full((1, 2), math.nan)
    assert ranks(broken, gallery[:1], gallery, torch.tensor([0])).tolist() == [2]


@pytest.mark.parametrize("block", [1, 7, 40, 100])
def test_blocks_of_the_gallery_change_nothing(monkeypatch, block):
    draw = torch.Generator().manual_seed(0)
    gallery, seen = (torch.nn.functional.normalize(torch.randn(n, 6, generator=draw), dim=1) for n in (40, 30))
    own = torch.randint(40, (30,), generator=draw)
    monkeypatch.setattr(measures, "BLOCK", block)
    order = (seen @ gallery.t()).argsort(dim=1, descending=True)
    assert torch.equal(ranks(seen, gallery[own], gallery, own), (order == own[:, None]).nonzero()[:, 1])


def test_similarity_and_consistency_by_hand():
    seen = torch.stack([at(0, 30, 90), at(10, 10, 10)])
    found = similarity(seen, at(0, 70))
    assert found.tolist() == pytest.approx([(1 + cos(30) + 0) / 3, cos(60)], abs=1e-6)
    assert consistency(seen).tolist() == pytest.approx([(cos(30) + cos(60) + cos(90)) / 3, 1.0], abs=1e-6)


def test_janus_by_hand():
    behind = torch.stack([at(10, 80), at(50, 60)])
    assert janus(behind, front=at(0, 0), back=at(90, 90)).tolist() == [0.5, 0.0]


def test_views_from_behind():
    circle = torch.arange(8) * 45.0
    assert views_from_behind(circle, within=0) == [4]
    assert views_from_behind(circle, within=45) == [3, 4, 5]
    assert views_from_behind(circle - 360, within=0) == [4]
    assert views_from_behind(torch.arange(120) * (360 / 120), within=30) == list(range(50, 71))
    assert views_from_behind(torch.tensor([0.0]), within=30) == []


def test_every_measure_of_two_prompts():
    """Texts at 0, 40 and 90 degrees. The first is seen at 10, 30 and 350, the other, at 90, at 80, 80 and 50."""
    gallery = at(0, 40, 90)
    texts = Texts(prompt=at(0, 90), front=at(20, 60), back=at(350, 90), place=torch.tensor([0, 2]))
    seen = torch.stack([at(10, 30, 350), at(80, 80, 50)])
    found = {name: values.tolist() for name, values in measure(seen, texts, gallery, behind=[1]).items()}
    assert found.pop("similarity") == pytest.approx(
        [(2 * cos(10) + cos(30)) / 3, (2 * cos(10) + cos(40)) / 3], abs=1e-6
    )
    assert found.pop("consistency") == pytest.approx(
        [(cos(20) + cos(40) + cos(20)) / 3, (1 + 2 * cos(30)) / 3], abs=1e-6
    )
    assert found.pop("view_recall_1") == pytest.approx([2 / 3, 2 / 3])
    assert found == {
        "view_recall_5": [1.0, 1.0],
        "object_recall_1": [1.0, 1.0],
        "object_recall_5": [1.0, 1.0],
        "rank": [1.0, 1.0],
        "janus": [1.0, 0.0],  # 30 is nearer to 20 than to 350, 80 to 90 than to 60
    }
    one_view = measure(seen[:, :1], texts, gallery, behind=[])
    assert not {"consistency", "janus"} & set(one_view)


def test_a_batch_equals_its_samples():
    draw = torch.Generator().manual_seed(1)

    def features(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, 5, generator=draw), dim=-1)

    seen, gallery, prompt, front, back = features(4, 6), features(9), features(4), features(4), features(4)
    place = torch.tensor([3, -1, 0, 8])
    prompt = torch.where(place[:, None] < 0, prompt, gallery[place])
    together = measure(seen, Texts(prompt, front, back, place), gallery, behind=[2, 3])
    for i in range(4):
        one = slice(i, i + 1)
        alone = measure(seen[one], Texts(prompt[one], front[one], back[one], place[one]), gallery, behind=[2, 3])
        for name, values in together.items():
            torch.testing.assert_close(values[one], alone[name], rtol=1e-6, atol=1e-6)


# -- the model ---------------------------------------------------------------------------------------------------


def test_features_are_those_of_transformers(clip):
    from transformers import CLIPModel, CLIPTokenizer

    folder = clip.tokenizer.name_or_path
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    texts = ["a red duck", "a very long text about a duck that wears a hat on a drum on a cloud of clouds", ""]
    pictures = torch.rand(3, SIDE, SIDE, 3)
    with torch.no_grad():
        out = model(
            pixel_values=clip.preprocessed(pictures),
            **tokenizer(texts, truncation=True, max_length=24, padding="max_length", return_tensors="pt"),
        )
    torch.testing.assert_close(clip.read(texts), out.text_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.see(pictures), out.image_embeds, rtol=1e-4, atol=1e-5)
    assert clip.read([]).shape == (0, 12)


@pytest.mark.parametrize("side", [SIDE, 40, 13])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_pictures_are_prepared_as_by_transformers(folder, side, resample):
    theirs = pytest.importorskip("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil
    processor = theirs.from_pretrained(folder, resample={"bilinear": 2, "bicubic": 3}[resample])
    draw = torch.Generator().manual_seed(0)
    # Noise that is not clamped when it is sharpened: they clamp after each axis.
    pixels = torch.randint(60, 196, (2, side, side, 3), generator=draw, dtype=torch.uint8)
    expected = torch.as_tensor(processor(list(pixels.numpy()), return_tensors="pt")["pixel_values"])
    found = Clip(folder, resample=resample).preprocessed(pixels.float() / 255)
    # They round to 8 bits after resizing along each axis: up to half a step of 1 / 255 / 0.26 each.
    step = 1 / 255 / 0.26
    torch.testing.assert_close(found, expected, rtol=0, atol=step if side != SIDE else 1e-5)
    assert (found - expected).abs().mean() < step / 2


def test_a_larger_picture_is_cut_in_its_middle(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "clip")
    file = other / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "size": {"shortest_edge": SIDE + 4}}))
    pictures = torch.rand(1, SIDE + 4, SIDE + 4, 3)
    expected = Clip(folder).preprocessed(pictures[:, 2:-2, 2:-2])
    torch.testing.assert_close(Clip(other).preprocessed(pictures), expected)


def test_the_newer_file_of_a_processor_is_read(folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "clip"))
    options = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").unlink()
    (other / "processor_config.json").write_text(json.dumps({"image_processor": options}))
    assert Clip(other).preprocessing == Clip(folder).preprocessing


def test_the_judge_is_a_clip(clip):
    judge = Judge()
    assert (judge.preprocessing.size, judge.resample, judge.length) == (64, "bilinear", 24)
    assert judge.see(torch.rand(2, 64, 64, 3)).norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_texts_that_are_too_long_are_told(clip, caplog):
    clip.warn_of_cut(["a duck", "a duck " * 30])
    assert "1 of 2 texts are longer than 24 tokens; the CLIP does not see the rest of them" in caplog.text


# -- files -------------------------------------------------------------------------------------------------------


def test_places_of_a_clip(folder, monkeypatch):
    assert find(str(folder)) == folder
    assert find("toy_clip") == FOLDER
    with pytest.raises(UserError) as error:
        find("nowhere")
    assert str(error.value) == (
        "protocol.clip: there is no folder 'nowhere'; give one in transformers' layout, a hub name such as "
        "openai/clip-vit-large-patch14 (downloaded once), or toy_clip, which is bundled."
    )


def test_without_a_network_a_hub_name_says_how_to_get_it(monkeypatch, tmp_path):
    def snapshot_download(repository, **options):
        raise ConnectionError("no route to the hub\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError) as error:
        find("openai/clip-vit-large-patch14")
    assert str(error.value) == (
        "cannot download openai/clip-vit-large-patch14 (no route to the hub). Set protocol.clip to a local folder in "
        "transformers' layout, or download it where there is a network: hf download openai/clip-vit-large-patch14"
    )


@pytest.mark.parametrize("safe", [True, False])
def test_a_hub_name_is_downloaded_once(monkeypatch, tmp_path, safe):
    """Pickled weights only where the repository has no others."""
    asked, repository = [], write_tiny_clip(tmp_path / "repository", safe=safe)

    def snapshot_download(name, *, local_dir=None, allow_patterns, local_files_only=False):
        folder = tmp_path / "cache"
        if local_files_only:
            if not folder.exists():
                raise FileNotFoundError(name)
            return str(folder)
        asked.append(allow_patterns)
        folder.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in repository.glob(pattern):
                shutil.copy(file, folder / file.name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = find("some/clip")
    assert asked == ([PATTERNS] if safe else [PATTERNS, PICKLE])
    assert find("some/clip") == found
    assert len(asked) == 1 + (not safe)
    torch.testing.assert_close(Clip(found).read(["a duck"]), Clip(repository).read(["a duck"]))


def spoil(name: str, **values):
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


BREAK = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json is missing: that is no CLIP in"),
    "another model": (spoil("config.json", model_type="siglip"), "is no CLIP: config.json says siglip; name another"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing; fetch it anew"),
    "weights cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "its header promises",
    ),
    "no tokenizer": (lambda f: (f / "vocab.json").unlink(), "vocab.json is missing; fetch it anew"),
    "no preprocessing": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    "another size": (
        spoil("preprocessor_config.json", crop_size=24),
        "preprocessor_config.json makes pictures of 24 pixels, the model of config.json takes 16; name another folder.",
    ),
    "no mean": (spoil("preprocessor_config.json", image_mean=None), "preprocessor_config.json is not what a CLIP's"),
    "broken vocabulary": (lambda f: (f / "vocab.json").write_text("{"), "cannot be loaded: "),
    "weights of another shape": (spoil("config.json", projection_dim=9), "do not fit its config.json"),
}


@pytest.mark.parametrize("case", BREAK)
def test_a_broken_folder_is_one_line(folder, tmp_path, case):
    damage, message = BREAK[case]
    broken = Path(shutil.copytree(folder, tmp_path / "clip"))
    damage(broken)
    with pytest.raises(UserError) as error:
        Clip(find(str(broken)))
    assert str(error.value).startswith(str(broken))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
