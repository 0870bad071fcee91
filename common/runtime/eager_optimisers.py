"""torch's optimisers without torch's compiler, which they import although nothing is compiled.

``torch.optim`` guards its methods against being compiled: the wrappers import ``torch._dynamo`` at
the first call, which costs a second of CPU and 80 MB in each process. These classes are torch's
own, step by step and bit by bit; only the wrappers are left out, and only where nothing is being
compiled. A version of torch without such wrappers gets its plain methods.
"""

import inspect
from collections.abc import Callable
from typing import Any, overload

import torch


class EagerOptimiser(torch.optim.Optimizer):
    """Mixed in before one of torch's optimisers; none of them may be ``differentiable``."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Do what torch's does."""
        _unwrapped(super().add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do what torch's does."""
        _unwrapped(super().zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return what torch's does."""
        state: dict[str, Any] = _unwrapped(super().state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do what torch's does."""
        _unwrapped(super().load_state_dict)(self, state_dict)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step.

        Args:
            closure: Computes the loss and its gradients anew, for optimisers that ask again.

        Returns:
            What the closure returned, None without one.
        """
        if torch.compiler.is_compiling():
            return super().step(closure)
        with torch.no_grad():  # which one of the wrappers does
            loss: float | None = _unwrapped(super().step)(self, closure)
        return loss


class SGD(EagerOptimiser, torch.optim.SGD):
    """Stochastic gradient descent, as torch's."""


class Adam(EagerOptimiser, torch.optim.Adam):
    """Adam (Kingma and Ba 2015), as torch's."""


class AdamW(EagerOptimiser, torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019), as torch's."""


class Adagrad(EagerOptimiser, torch.optim.Adagrad):
    """Adagrad (Duchi et al. 2011), as torch's."""


def _unwrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a bound method's function, without its wrappers.

    They name what they wrap as :func:`functools.wraps` does, in ``__wrapped__``.
    """
    function: Callable[..., Any] = inspect.unwrap(method.__func__)  # type: ignore[attr-defined] # bound
    return function
