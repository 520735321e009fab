"""What ``python -m scaledreamer.serve`` can be told: names, types, ranges and defaults of ``conf/serve.yaml``."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from scaledreamer.config.signature import Part
from scaledreamer.constraints import NonNegativeInt, PositiveFloat, PositiveInt
from scaledreamer.errors import UserError
from scaledreamer.render.options import Size, WeightsChoice


@dataclass(frozen=True, kw_only=True)
class ServeOptions(WeightsChoice):
    """A server of one trained generator.

    Args:
        run, checkpoint, train, device: see :class:`WeightsChoice`.
        host: address or name to listen at.
        port: to listen at, or the next one that is free; 0 for any.
        open: whether to open the page in a browser of this machine.
        longest: most characters of a prompt.
        examples: prompts of the corpus that the page offers.
        waiting: most prompts that wait for their turn.
        keep: objects whose files are kept.
        frames: of the video of a turn; 0 for no video.
        fps: frames per second.
        image_size: side of the video in pixels; None for that of the run's evaluation cameras.
        mesh: how meshes are extracted.

    Raises:
        UserError: the options contradict each other or name what is not there.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = 7860
    open: bool = False
    longest: Annotated[int, Ge(1), Le(2000)] = 200
    examples: NonNegativeInt = 8
    waiting: PositiveInt = 8
    keep: PositiveInt = 50
    frames: NonNegativeInt = 30
    fps: PositiveFloat = 12.0
    image_size: Size | None = None
    mesh: Part

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.host.strip():
            raise UserError("host: is blank; 127.0.0.1 is this machine alone, 0.0.0.0 every network that it is in.")
