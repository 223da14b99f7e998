"""A sound that nobody asked for: what takes its time only at its first use is then done for the first one they do."""

from timbred.engine.adapters.grid import Grid
from timbred.engine.adapters.tracing import Shapes
from timbred.engine.wire import RenderOrder, Words

PATIENCE = 5.0
"""Seconds after which a rehearsal goes on without what isn't prepared yet."""

STEPS = 2
"""At the first one much is made that the second one uses."""


def rehearsal(shapes: Shapes, grid: Grid) -> RenderOrder:
    """An order for which the network is called with inputs of these shapes."""
    rows, _, length, _ = shapes[0].size
    return RenderOrder(
        words=Words(prompt="rehearsal"),
        seconds=length * grid.row / grid.rate,
        steps=STEPS,
        guidance=1.0 if rows == 1 else 2.0,
        eta=0.0,
        scheduler="dpm++2m",
        seeds=(0,),
    )
