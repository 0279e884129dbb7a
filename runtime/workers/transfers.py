"""What do `send` and `receive` do? They give a frame's values to the rank's transport, and take them from it."""

from __future__ import annotations

from lpc.runtime.handlers import Binder, Operation, Section
from lpc.runtime.resources import Frame
from lpc.runtime.workers.transport import Stamp
from lpc.specs.plan.instructions import Receive, Send


def _bind_send(section: Section, instruction: Send) -> Operation:
    value, rank, transport = instruction.value, instruction.rank, section.resources.transport
    state = {tensor.untyped_storage().data_ptr() for tensor in section.resources.state.own.values()}
    changes = value in section.resources.variables

    def send(frame: Frame) -> None:
        """A variable, and what shares memory with the state, is copied: it may change before it has left."""
        held = [t.clone() if changes or t.untyped_storage().data_ptr() in state else t for t in frame.env[value]]
        transport.send(rank, Stamp(frame.step, frame.part, value), held)

    return send


def _bind_receive(section: Section, instruction: Receive) -> Operation:
    value, rank, transport = instruction.value, instruction.rank, section.resources.transport

    def receive(frame: Frame) -> None:
        frame.env[value] = transport.receive(rank, Stamp(frame.step, frame.part, value))

    return receive


TRANSFERS: dict[type, Binder] = {Send: _bind_send, Receive: _bind_receive}
