"""What the registry knows of an optimizer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from research.optimizers.spaces import FACTOR_OF_ITS_OWN_RATE, Range


class StateSize(NamedTuple):
    """How many values are kept of a matrix of R rows and C columns, next to the matrix itself.

    Single numbers, such as counts, do not count.
    """

    copies: int = 0  # of the matrix
    rows: int = 0  # values for each row
    columns: int = 0
    row_squares: int = 0  # R² values each
    column_squares: int = 0
    smaller_squares: int = 0  # min(R, C)² values each

    def of(self, rows: int, columns: int) -> int:
        """Values kept of a matrix.

        Example:
            >>> StateSize(copies=2, columns=1).of(3, 4)
            28
        """
        sizes = (
            rows * columns,
            rows,
            columns,
            rows**2,
            columns**2,
            min(rows, columns) ** 2,
        )
        return sum(number * size for number, size in zip(self, sizes, strict=True))

    def per_parameter(self) -> str:
        """The same, divided by R C, as a formula.

        Example:
            >>> StateSize(copies=2, row_squares=1).per_parameter()
            '2 + R/C'
        """
        shares = ("1", "1/C", "1/R", "R/C", "C/R", "min(R/C, C/R)")
        parts = []
        for number, share in zip(self, shares, strict=True):
            if number:
                several = str(number) + (share[1:] if share[0] == "1" else f" {share}")
                parts.append(share if number == 1 else several)
        return " + ".join(parts) or "0"


def as_trained(state: optax.OptState, params: Any) -> Any:
    """The parameters to evaluate, for most optimizers: those that gradients are taken at."""
    del state
    return params


class Optimizer(NamedTuple):
    """An entry of the registry.

    ``build(learning_rate=..., ...)`` takes the search space's names, as plain or traced numbers.
    With ``schedule_inside`` it takes a function of the step as its learning rate too, because a
    factor on the whole update would break the method; ``evaluated`` gives the parameters to
    evaluate from those that are trained. A space that is changed gets a new ``version``.

    Every entry takes one gradient a step.
    """

    build: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Range]
    paper: str
    state: StateSize = StateSize()
    version: int = 1
    schedule_inside: bool = False
    evaluated: Callable[[optax.OptState, Any], Any] = as_trained

    @property
    def finds_its_rate(self) -> bool:
        """Whether ``learning_rate`` is a factor, near one, of a rate that the optimizer finds."""
        return self.space["learning_rate"] == FACTOR_OF_ITS_OWN_RATE
