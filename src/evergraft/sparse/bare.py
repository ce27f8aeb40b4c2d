"""Whether a module may be computed together with others, past its own call."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

import torch
from torch import nn
from torch.nn.modules import module as modules

Kind = TypeVar("Kind", bound=nn.Module)


def is_bare(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether a call of the module is nothing but the `forward` of that very class, with no hook around it.

    Nothing is said of modules in a graph that is being compiled: there it is False.

    Example:
        >>> is_bare(nn.Linear(2, 2), nn.Linear)
        True
    """
    return (
        not torch.compiler.is_compiling()
        and type(module) is kind
        and module._compiled_call_impl is None
        and "forward" not in vars(module)
        and not modules._has_any_global_hook()  # type: ignore[no-untyped-call]
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
    )
