"""What the processes of a run work out together, by two of them and by one."""

from multiprocessing import get_context

import pytest
import torch
from torch import distributed

from scaledreamer.collectives import largest, largest_number, mean, together

CPU = torch.device("cpu")


def _take_part(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    later = largest_number(3 * rank, CPU)
    found = {
        "together": together(),
        "largest": largest(torch.tensor([[1.0, -2.0], [-1.0, 2.0]][rank])),
        "mean": mean(torch.tensor([[1.0, -2.0], [2.0, 5.0]][rank])),
        "number": later(),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_find_the_same(tmp_path):
    started = [get_context("fork").Process(target=_take_part, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["together"] is True
        assert found["largest"].tolist() == [1.0, 2.0]
        assert found["mean"].tolist() == [1.5, 1.5]
        assert found["number"] == 3


def test_one_process_finds_its_own():
    assert not together()
    assert largest(torch.tensor([1.0, -2.0])).tolist() == [1.0, -2.0]
    assert mean(torch.tensor([1.0, -2.0])).tolist() == [1.0, -2.0]
    assert largest_number(2, CPU)() == 2


@pytest.mark.gpu
def test_a_number_of_a_gpu_is_read_without_waiting_for_what_came_after():
    device = torch.device("cuda")
    later = largest_number(2, device)
    torch.cuda._sleep(2_000_000_000)  # about a second
    after = torch.cuda.Event()
    after.record()
    assert later() == 2
    assert not after.query()
