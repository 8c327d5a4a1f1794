"""Recurrent layers on the meta device: one step of a sequence stands for all steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map


class OneStep(TorchFunctionMode):
    """Inside it, recurrent layers on meta tensors run one step, and repeat its output.

    On the meta device torch has no operator for a sequence: it runs step by step, operator by operator, which
    takes minutes where many layers read long sequences, mostly in backward. All steps run the same operators
    on the same shapes. `repeated` is entered for the one step with the number of steps that it stands for;
    for packed sequences, which end at different steps, with the sum of their lengths, at batch size 1.
    """

    def __init__(self, repeated: Callable[[int], AbstractContextManager[object]] = nullcontext) -> None:
        super().__init__()
        self._repeated = repeated

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_whole = getattr(func, "__name__", "") in _WHOLE and len(args) == 9 and not kwargs
        if not is_whole or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        if not isinstance(args[3], bool):
            return self._packed(func, *args)
        *others, batch_first = args[1:]
        steps: Tensor = args[0].transpose(0, 1) if batch_first else args[0]
        if not steps.is_meta or len(steps) < 2:
            return func(*args)
        with self._repeated(len(steps)):
            output, *states = func(steps[:1], *others, False)
        output = output.repeat(len(steps), 1, 1)
        return (output.transpose(0, 1) if batch_first else output, *states)

    def _packed(self, func: Any, data: Tensor, sizes: Tensor, states: Any, *others: Any) -> Any:
        """Steps (S, C) of all sequences, `sizes` the number of sequences at each step; states (layers, N,
        features).
        """
        if not data.is_meta or len(data) < 2:
            return func(data, sizes, states, *others)
        first = tree_map(lambda state: state[:, :1], states)
        with self._repeated(len(data)):
            output, *last = func(data[:1], sizes.new_ones(1), first, *others)
        sequences = tree_leaves(states)[0].shape[1]
        return (output.repeat(len(data), 1), *(state.repeat(1, sequences, 1) for state in last))


_WHOLE = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""torch's functions of a sequence, as `nn.LSTM` and the others call them."""
