"""On which device does a plan run, and by which of its kernels?"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Plan


def choose_device(plan: Plan, wanted: str | torch.device) -> torch.device:
    """Return the device that `wanted` names; `auto` is CUDA where both the machine and the plan have it.

    Errors: 0663 a device that torch does not know, or that this machine lacks.
    """
    if str(wanted) == "auto":
        wanted = "cuda" if torch.cuda.is_available() and usable(plan, "cuda") is not None else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise LpcError(Diagnostic("0663", f"`{wanted}` is no device", place="device")) from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda" or not torch.cuda.is_available():
        raise LpcError(Diagnostic("0663", f"there is no `{wanted}` device here", place="device"))
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        message = f"there is no `{wanted}` device here, only {torch.cuda.device_count()} of its kind"
        raise LpcError(Diagnostic("0663", message, place="device"))
    return torch.device("cuda", index)


def choose_kernels(plan: Plan, device: torch.device) -> Mapping[str, Kernel]:
    """Return the kernels to run on a device. Errors: 0664 when the plan has none for it."""
    kernels = usable(plan, device.type)
    if kernels is not None:
        return kernels
    message = f"the plan was built for `{plan.target}` and has no kernels that run on `{device.type}`"
    help_ = f"build it with `--set run.target=portable`, or where there is `{device.type}`"
    raise LpcError(Diagnostic("0664", message, place="device", help=help_))


def usable(plan: Plan, kind: str) -> Mapping[str, Kernel] | None:
    """Return the native kernels where they fit the kind of device, else the portable ones with device-free
    native ones beside them; None where a kernel is left that fits neither way."""
    native = plan.kernels["native"]
    if plan.target in (kind, "portable"):
        return native
    portable = plan.kernels.get("portable", {})
    chosen = {name: portable.get(name, kernel) for name, kernel in native.items()}
    return chosen if all(kernel.device in ("any", kind) for kernel in chosen.values()) else None
