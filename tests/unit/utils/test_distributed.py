import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from slowfast.utils import distributed as du
from slowfast.utils.gather import all_gather_rows

WEIGHTS = torch.arange(48.0).view(3, 4, 4).square()


def _own_rows(rank):
    """(2, 3, 4) of a process."""
    return torch.arange(24.0).view(2, 3, 4) + 100 * rank


def _rows_with_gradients(rank):
    """Gathered rows, and the gradient that a loss of all processes' rows sends to one's own, axes in either order."""
    found = []
    for swapped in (False, True):
        own = _own_rows(rank).requires_grad_()
        rows = all_gather_rows(own)
        # Rank 1 weighs everything thrice, so that what comes from each process can be told.
        weights = WEIGHTS * (1 + 2 * rank)
        ((rows.transpose(0, 1) * weights) if swapped else (rows * weights.transpose(0, 1))).sum().backward()
        found.append((rows.detach(), own.grad))
    return found


def _worker(rank, world, file, out):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    try:
        generator = torch.Generator().manual_seed(3)
        mine = torch.full((2,), float(rank + 1))
        result = {
            "rank": du.get_rank(),
            "world": du.get_world_size(),
            "master": du.is_master(),
            "gathered": du.all_gather_objects({"r": rank}),
            "largest": du.all_reduce_max(mine),
            "sum": du.all_reduce_sum(mine),
            "table": du.all_gather_table(mine),
            "mine": mine,
            "cast": du.broadcast_object(f"from {rank}"),
            "rows": _rows_with_gradients(rank),
            "draw": du.shard_draw(lambda n: torch.rand(n, 3, generator=generator), 2),
        }
        du.barrier()
        torch.save(result, f"{out}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_single_process_is_the_identity():
    tensor = torch.ones(2)
    assert (du.get_rank(), du.get_world_size(), du.is_master()) == (0, 1, True)
    assert du.all_gather_objects("a") == ["a"]
    assert du.all_reduce_max(tensor) is tensor
    assert du.all_reduce_sum(tensor) is tensor
    assert torch.equal(du.all_gather_table(tensor), tensor[None])
    assert all_gather_rows(tensor) is tensor
    assert du.broadcast_object(5) == 5
    assert du.shard_draw(torch.zeros, 4).shape == (4,)
    du.barrier()


def test_two_gloo_ranks(tmp_path):
    mp.spawn(_worker, args=(2, tmp_path / "store", tmp_path), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = torch.rand(4, 3, generator=torch.Generator().manual_seed(3))
    for rank, result in enumerate(results):
        assert (result["rank"], result["world"], result["master"]) == (rank, 2, rank == 0)
        assert result["gathered"] == [{"r": 0}, {"r": 1}]
        assert torch.equal(result["largest"], torch.full((2,), 2.0))
        assert torch.equal(result["sum"], torch.full((2,), 3.0))
        assert torch.equal(result["table"], torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        assert torch.equal(result["mine"], torch.full((2,), rank + 1.0))
        for rows, gradient in result["rows"]:
            assert torch.equal(rows, torch.cat((_own_rows(0), _own_rows(1))))
            assert torch.equal(gradient, 4 * WEIGHTS.transpose(0, 1)[2 * rank : 2 * rank + 2])
        assert result["cast"] == "from 0"
    assert torch.equal(torch.cat([result["draw"] for result in results]), whole)
