"""What is kept of a training: its losses and scores, up to where it diverged."""

import math

import numpy as np
from jaxtyping import Float

from research.sweep.store import Row
from research.sweep.training import Training

# Every optimizer of the registry takes one gradient a step.
_GRADIENT_EVALUATIONS = 1


class Curve:
    """The windows of one training as they come.

    It ends with the first window that has a training loss or ends in a validation score that is
    not finite. Trainings that share a program with others may go on, which changes nothing here.
    """

    def __init__(self, steps: int, evaluate_every: int):
        self._evaluated = list(range(evaluate_every, steps + 1, evaluate_every))
        self._train_loss: list[float | None] = []
        self._validation_loss: list[float | None] = []
        self._validation_score: list[float | None] = []
        self._seen = 0
        self._diverged_at: int | None = None
        self.ended = False

    def add(self, losses: Float[np.ndarray, " W"], loss: float, score: float) -> None:
        """Take in a window: its training losses, validation loss and score at its end."""
        if self.ended:
            return
        finite = np.isfinite(losses)
        if not finite.all():
            self._diverged_at = self._seen + int(np.argmin(finite)) + 1
        self._seen += len(losses)
        self.ended = self._diverged_at is not None or not math.isfinite(score)
        if self._diverged_at is None:
            self._train_loss.append(float(np.mean(losses, dtype=np.float64)))
            self._validation_loss.append(_finite(loss))
            self._validation_score.append(_finite(score))

    def row(self, training: Training, tested: dict[str, float]) -> Row:
        """The row of the training, with what was measured on the test split, if it was."""
        finished = not self.ended
        return {
            "key": training.key(),
            "status": "finished" if finished else "diverged",
            "settings": training.settings(),
            "result": {
                "steps": self._evaluated,
                "train_loss": self._padded(self._train_loss),
                "validation_loss": self._padded(self._validation_loss),
                "validation_score": self._padded(self._validation_score),
                "diverged_at": self._diverged_at,
                "test_loss": _finite(tested["loss"]) if finished and tested else None,
                "test_score": _finite(tested["score"]) if finished and tested else None,
                "gradient_evaluations": _GRADIENT_EVALUATIONS,
            },
        }

    def _padded(self, values: list[float | None]) -> list[float | None]:
        return values + [None] * (len(self._evaluated) - len(values))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
