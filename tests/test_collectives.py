"""What the processes of a run work out together, by two of them and by one."""

from typing import Any

import pytest
import torch
from pairs import by_two

from scaledreamer.collectives import largest, largest_number, mean, together

CPU = torch.device("cpu")


def _found(rank: int) -> dict[str, Any]:
    later = largest_number(3 * rank, CPU)
    return {
        "together": together(),
        "largest": largest(torch.tensor([[1.0, -2.0], [-1.0, 2.0]][rank])),
        "mean": mean(torch.tensor([[1.0, -2.0], [2.0, 5.0]][rank])),
        "number": later(),
    }


def test_two_processes_find_the_same(tmp_path):
    for found in by_two(_found, tmp_path):
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
