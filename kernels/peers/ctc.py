"""CTC by optax and by torch."""

import importlib
import importlib.util

import numpy as np

from kernels.peers.common import JaxPeer, LibraryPeer, find_torch, torch_device, waiting
from kernels.problems import Problem, cotangent


def optax_peer(problem: Problem, gradient: bool) -> JaxPeer | str:
    """``optax.ctc_loss``, which has the same signature."""
    del gradient
    if importlib.util.find_spec("optax") is None:
        return "optax is not installed (pip install optax)"
    optax = importlib.import_module("optax")
    operands = dict(problem.operands)

    def loss(logits):
        given = operands | {"logits": logits}
        return optax.ctc_loss(**given, **problem.options)

    return JaxPeer(loss, "optax: ctc_loss, log_epsilon as it comes")


def torch_peer(problem: Problem, gradient: bool) -> LibraryPeer | str:
    """``torch.nn.functional.ctc_loss`` of ``log_softmax``, without reduction."""
    torch = find_torch()
    if isinstance(torch, str):
        return torch
    operands = {name: np.asarray(array) for name, array in problem.operands.items()}
    if problem.dtype != "float32":
        return f"torch has no CTC in {problem.dtype}"
    if (np.diff(operands["logit_paddings"], axis=1) < 0).any():
        return "torch cannot skip frames in mid-sequence"
    device = torch_device(torch)

    def tensor(array):
        return torch.from_numpy(np.array(array, order="C")).to(device)

    logits = tensor(operands["logits"].transpose(1, 0, 2))
    labels = tensor(operands["labels"].astype(np.int64))
    lengths = tensor((operands["logit_paddings"] == 0).sum(1).astype(np.int64))
    label_lengths = tensor((operands["label_paddings"] == 0).sum(1).astype(np.int64))
    blank = problem.options["blank_id"]

    def forward(logits):
        log_probs = torch.nn.functional.log_softmax(logits, dim=-1)
        return torch.nn.functional.ctc_loss(
            log_probs, labels, lengths, label_lengths, blank, reduction="none"
        )

    def value():
        with torch.no_grad():
            return (forward(logits),)

    direction = tensor(np.asarray(cotangent((len(labels),), problem.dtype)))

    def value_and_gradient():
        loss = forward(logits)
        return (loss.detach(), *torch.autograd.grad(loss, [logits], direction))

    def read(results):
        loss, *slopes = (part.cpu().numpy() for part in results)
        return (loss, *(slope.transpose(1, 0, 2) for slope in slopes))

    if gradient:
        logits.requires_grad_()
    where = "native or cuDNN" if device == "cuda" else f"{torch.get_num_threads()} threads"
    return LibraryPeer(
        value_and_gradient if gradient else value,
        waiting(torch, device),
        read,
        f"torch: eager log_softmax and ctc_loss on logits laid out (T, B, K), its order; {where}",
    )
