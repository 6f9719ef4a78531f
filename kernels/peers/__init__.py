"""What others offer for the same operations: who the benchmark measures beside ours.

``PEERS`` has one entry per operation. A peer is made for a problem, and for its value alone or its
value and every gradient; it is a function that JAX compiles, or a call of another library, which is
imported here and nowhere else in ``kernels``, and only when it is asked for.
"""

from collections.abc import Mapping

from kernels.peers import attention, conformer, conv2d, ctc, depthwise1d, depthwise2d
from kernels.peers.common import Factory, JaxPeer, LibraryPeer

__all__ = ["PEERS", "Factory", "JaxPeer", "LibraryPeer", "peers"]

PEERS: Mapping[str, Mapping[str, Factory]] = {
    "attention": {
        "jax.nn/xla": attention.jax_peer("xla"),
        "jax.nn/cudnn": attention.jax_peer("cudnn"),
        "torch/flash": attention.torch_peer("FLASH_ATTENTION"),
        "torch/efficient": attention.torch_peer("EFFICIENT_ATTENTION"),
        "torch/cudnn": attention.torch_peer("CUDNN_ATTENTION"),
        "torch/math": attention.torch_peer("MATH"),
        "tokamax": attention.tokamax_peer,
    },
    "depthwise_conv1d": {"lax": depthwise1d.lax_peer, "torch": depthwise1d.torch_peer},
    "conformer_convolution": {"lax": conformer.lax_peer, "torch": conformer.torch_peer},
    "depthwise_conv2d": {"lax": depthwise2d.lax_peer, "torch": depthwise2d.torch_peer},
    "conv2d": {"lax": conv2d.lax_peer, "torch": conv2d.torch_peer},
    "ctc_loss": {"optax": ctc.optax_peer, "torch": ctc.torch_peer},
}


def peers(operation: str) -> Mapping[str, Factory]:
    """The peers of an operation, by name; none, if nobody else has it.

    Example:
        >>> sorted(peers("depthwise_conv1d"))
        ['lax', 'torch']
    """
    return PEERS.get(operation, {})
