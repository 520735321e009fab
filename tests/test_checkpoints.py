"""Finding, reading and comparing checkpoints."""

import os
import time

import pytest
import torch

from scaledreamer.errors import UserError
from scaledreamer.training.checkpoints import find, newest, read, require_same

CONFIG = {"generator": {"width": 2, "noise": "none"}, "corpus": {"name": "a", "batch_size": 1}, "seed": 0, "name": "x"}


def save(path, config=CONFIG):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "scaledreamer": {"version": "0", "config": config}}, path)
    return path


def test_newest_is_the_last_written_whatever_its_name(tmp_path):
    save(tmp_path / "checkpoints" / "step-0000010.ckpt")
    last = save(tmp_path / "checkpoints" / "last.ckpt")
    os.utime(tmp_path / "checkpoints" / "step-0000010.ckpt", ns=(time.time_ns() - 10**9,) * 2)
    assert newest(tmp_path) == last


def test_find_auto_starts_anew_where_nothing_was_saved(tmp_path):
    assert find("auto", tmp_path) is None
    assert find(None, tmp_path) is None


def test_find_takes_a_file_or_a_run(tmp_path):
    path = save(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert find(str(path), tmp_path) == path
    assert find(str(tmp_path / "run"), tmp_path) == path


def test_find_names_a_path_without_checkpoints(tmp_path):
    with pytest.raises(UserError, match="no checkpoint there"):
        find(str(tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read(path)


def test_a_truncated_checkpoint_is_a_clear_error(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"w": torch.zeros(1000), "scaledreamer": {"config": CONFIG}}, path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read(path)


def test_another_tools_checkpoint_is_a_clear_error(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt"):
        read(tmp_path / "x.ckpt")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"scaledreamer": {"config": {}}, "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError):
        read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


def test_another_configuration_is_named_key_by_key(tmp_path):
    path = save(tmp_path / "last.ckpt")
    other = {**CONFIG, "generator": {"width": 4, "noise": "none"}, "seed": 1}
    with pytest.raises(UserError) as error:
        require_same(path, other)
    assert "generator.width: 2 in the checkpoint, 4 in this run" in str(error.value)
    assert "seed: 0 in the checkpoint, 1 in this run" in str(error.value)
    assert "noise" not in str(error.value)


def test_harmless_changes_resume(tmp_path):
    path = save(tmp_path / "last.ckpt")
    require_same(path, {**CONFIG, "name": "y", "corpus": {"name": "a", "batch_size": 4}, "trainer": {"max_steps": 5}})
