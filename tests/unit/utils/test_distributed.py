import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from slowfast.utils import distributed as du


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
            "table": du.all_gather_table(mine),
            "mine": mine,
            "cast": du.broadcast_object(f"from {rank}"),
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
    assert torch.equal(du.all_gather_table(tensor), tensor[None])
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
        assert torch.equal(result["table"], torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        assert torch.equal(result["mine"], torch.full((2,), rank + 1.0))
        assert result["cast"] == "from 0"
    assert torch.equal(torch.cat([result["draw"] for result in results]), whole)
