"""Losses and gradients of a training step, on one process and on several."""

import importlib
import socket
from pathlib import Path

import pytest
import torch

from slowfast.engine.launch import LaunchPlan, launch
from slowfast.models.losses import contrastive_divergence

# --------------------------------------------------------------------------------- functions of the spawned processes


def share_of_a_step(context, folder):
    from torch.nn.parallel import DistributedDataParallel

    from slowfast.config.defaults import get_cfg
    from slowfast.datasets.label_set import LabelSet
    from slowfast.datasets.types import VideoBatch
    from slowfast.methods.build import build_method

    job = torch.load(folder / "job.pt", weights_only=True)
    cfg = get_cfg()
    cfg.merge_from_list([item for pair in job["settings"].items() for item in pair])
    method = build_method(cfg, LabelSet.from_names(job["classes"])).double().train()
    method.normalise = lambda frames: frames.double()
    label = job["labels"][context.rank]
    first = sum(len(labels) for labels in job["labels"][: context.rank])
    batch = VideoBatch(
        job["frames"][first : first + len(label)],
        label=label,
        video_id=first + torch.arange(len(label)),
        view=torch.zeros_like(label),
    )
    model = DistributedDataParallel(method)
    output = model(batch)
    sum(output.losses.values()).backward()
    found = {"losses": {name: loss.detach() for name, loss in output.losses.items()}, "logits": output.logits}
    if context.rank == 0:
        found["gradients"] = {name: parameter.grad for name, parameter in method.trainable_parameters()}
    torch.save(found, folder / f"{context.rank}.pt")


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture
def in_processes(monkeypatch, tmp_path):
    """Runs a function of this file in several processes; returns what each saved."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    module = importlib.import_module(Path(__file__).stem)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]

    def run(function, job, *, count):
        torch.save(job, tmp_path / "job.pt")
        plan = LaunchPlan(num_gpus=count, backend="gloo", init_method=f"tcp://localhost:{port}")
        launch(plan, getattr(module, function.__name__), tmp_path)
        return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(count)]

    return run


@pytest.fixture
def step(build_ost, ost_batch):
    """A step of one process: makes the method with its gradients, and what it returned."""

    def run(dtype):
        method = build_ost(dtype).train()
        output = method(ost_batch)
        sum(output.losses.values()).backward()
        return method, output

    return run


def scores_of_classes(logits, label, num_classes):
    """Scores of the texts of a batch as scores of classes, by a loop."""
    found = torch.full((len(logits), num_classes), -torch.inf, dtype=torch.float64)
    for text, number in enumerate(label.tolist()):
        found[:, number] = torch.maximum(found[:, number], logits[:, text].double())
    return found


def test_one_process(golden_ost, step, ost_batch, ost_labels, precision, near, official):
    recorded = golden_ost["train"]["one_process"][precision.name]
    method, output = step(precision.dtype)
    near(output.losses["video_text"], recorded["loss_video_text"], relative=precision.values)
    near(output.losses["text_video"], recorded["loss_text_video"], relative=precision.values)
    near(sum(output.losses.values()), recorded["loss"], relative=precision.values)
    expected = scores_of_classes(recorded["logits"], ost_batch.label, len(ost_labels))
    assert torch.equal(output.logits.isinf(), expected.isinf())
    present = expected.isfinite()
    near(output.logits[present], expected[present], relative=precision.values)
    label = ost_batch.label
    assert torch.equal(recorded["ground_truth"], (label[:, None] == label).to(recorded["ground_truth"].dtype))

    own = dict(method.trainable_parameters())
    assert {official.own_name(name) for name in recorded["grad_norms"]} == set(own)
    for name, norm in recorded["grad_norms"].items():
        found = own[official.own_name(name)].grad.double().norm().item()
        assert abs(found - norm) <= precision.gradients * norm + (0 if precision.exact else 2e-5), name
    near(method.model.logit_scale.grad, recorded["grad_logit_scale"], relative=precision.gradients)


def test_whole_gradients(golden_ost, step, precision, near, official, dense):
    """Recorded in one precision; the other agrees as far as that goes."""
    recorded = golden_ost["train"]["one_process"]["float32"]
    method, _ = step(precision.dtype)
    own = dict(method.trainable_parameters())
    words = dense({"text_encoder.token_embedding.weight": recorded["grad_token_embedding"]})
    whole = {**recorded["grad_full"], **words}
    assert len(whole) > 1
    for name, expected in whole.items():
        near(own[official.own_name(name)].grad, expected, relative=1e-4, absolute=1e-6)


def test_several_processes(golden_ost, in_processes, step, ost_settings, ost_batch, ost_labels, near, official):
    """Our gather returns every gradient, so that any number of processes have that of one; the published one halves."""
    per_rank = golden_ost["inputs"]["labels_per_rank"]
    count, precision = len(per_rank), "float64"
    recorded, alone = golden_ost["train"]["two_processes"][precision], golden_ost["train"]["one_process"][precision]
    assert [label for labels in per_rank for label in labels] == ost_batch.label.tolist()
    job = {
        "settings": ost_settings,
        "classes": list(ost_labels.names),
        "frames": ost_batch.frames.contiguous(),
        "labels": [torch.tensor(labels) for labels in per_rank],
    }
    found = in_processes(share_of_a_step, job, count=count)
    for one in found:
        near(one["losses"]["video_text"], recorded["loss_video_text"], relative=1e-10)
        near(one["losses"]["text_video"], recorded["loss_text_video"], relative=1e-10)
    method, output = step(torch.float64)
    logits = torch.cat([one["logits"] for one in found])
    present = output.logits.isfinite()
    assert torch.equal(logits.isfinite(), present)
    near(logits[present], output.logits[present], relative=1e-10)
    gradients = found[0]["gradients"]
    for name, parameter in method.trainable_parameters():
        near(gradients.pop(name), parameter.grad, relative=1e-9, absolute=1e-14)
    assert not gradients

    for name, norm in alone["grad_norms"].items():
        share = 1 if name == "logit_scale" else count
        assert recorded["grad_norms"][name] * share == pytest.approx(norm, rel=1e-8), name


def test_losses(golden_ost, ost_loss_case, precision, near):
    case = golden_ost["loss"][ost_loss_case]
    logits = case["logits"].to(precision.dtype).requires_grad_()
    forth, back = contrastive_divergence(logits, case["labels"])
    near(forth, case["video_text"], relative=2e-5, absolute=2e-6)
    near(back, case["text_video"], relative=2e-5, absolute=2e-6)
    near(forth + back, case["sum64"] if precision.exact else case["sum"], relative=precision.values, absolute=1e-10)
    # The gradient of a row is what its softmax has too much.
    (rows,) = torch.autograd.grad(forth, logits, retain_graph=True)
    near(logits.softmax(dim=1) - len(logits) * rows, case["target"], absolute=2e-6)
    (whole,) = torch.autograd.grad(forth + back, logits)
    near(whole, case["grad_logits"], absolute=2e-6)
    assert torch.equal(case["ground_truth"], (case["labels"][:, None] == case["labels"]).float())
