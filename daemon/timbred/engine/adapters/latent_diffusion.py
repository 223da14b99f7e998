"""What AudioLDM and AudioLDM 2 have in common: latents of a mel spectrogram, a VAE, a vocoder.

Papers: AudioLDM, arXiv 2301.12503; AudioLDM 2, arXiv 2308.05734.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from timbred.engine.adapters.batches import Batches
from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.conditioning import Tensors, conditioning_cache, mixed, repeated
from timbred.engine.adapters.emphasis import leaning
from timbred.engine.adapters.finishing import Sounds, expected, finished, piece_by_piece
from timbred.engine.adapters.hearing import Hearing
from timbred.engine.adapters.network import Calling, Network
from timbred.engine.adapters.notes import named_note
from timbred.engine.adapters.places import Places
from timbred.engine.adapters.prepared import LATEST, Workshop
from timbred.engine.adapters.rehearsing import PATIENCE, rehearsal
from timbred.engine.adapters.run import Run
from timbred.engine.adapters.sounding import Sounding
from timbred.engine.adapters.stages import Stages
from timbred.engine.adapters.starting import started
from timbred.engine.adapters.stepping import next_steps, step_together
from timbred.engine.adapters.wrapping import make_wrapping
from timbred.engine.long_texts import LongText, Part, Windows, divide, long_texts, windows_of
from timbred.engine.sampling import StoppedByRequest
from timbred.engine.wire import RenderOrder, Words
from timbred.errors import ModelError


class LatentDiffusion:
    """A resident model. Subclasses say how words become conditioning and how the network is called."""

    calling: ClassVar[Calling]
    """How the network is called."""

    summaries: ClassVar[tuple[str, ...]] = ()
    """Names of the conditioning that are one summary of the whole prompt, and lean towards or away from a word."""

    def __init__(self, pipeline: Any, device: torch.device, scheduler_config: dict[str, Any], places: Places) -> None:
        for part in (pipeline.unet, pipeline.vae):
            make_wrapping(part)
        batches = Batches()
        self.pipeline = pipeline
        self.device = device
        self.scheduler_config = scheduler_config
        self.stages = Stages(pipeline.components, places)
        self.network = Network(pipeline.unet, self.calling, device, self.stages, batches)
        self.codec = Codec(pipeline, device, self.stages, batches)
        self.grid = self.codec.grid
        self.conditionings = conditioning_cache()
        self.memory = sum(self.stages.tensors.values())
        """Bytes of all weights."""
        self.prepare(Workshop("off", device, Path()))

    def prepare(self, workshop: Workshop) -> None:
        """Have the network and the VAE made fast for the shapes that come often."""
        self.stages.workshop = workshop
        self.network.prepare(workshop)
        self.codec.prepare(workshop)

    def rehearse(self) -> None:
        """Make a sound like those of earlier runs, if there were any, in a few steps, once all is prepared for it:
        what takes its time only at its first use is then done for the first sound that is asked for. For CPUs; others
        may be using components that this model shares with theirs."""
        shapes = self.network.fast.latest
        if shapes is None:
            return
        self.stages.workshop.wait(LATEST, PATIENCE)
        self.render(rehearsal(shapes, self.grid), lambda _: None, lambda: False)
        self.conditionings.clear()

    def settle(self) -> None:
        """Have the components on the device, as far as there is room."""
        self.stages.places.add(self.modules)
        for module, calls in ((self.pipeline.unet, self.network.fast), (self.pipeline.vae, self.codec.fast)):
            self.stages.places.on_move(module, calls.forget)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Every component with weights."""
        return self.stages.modules

    @property
    def copies(self) -> int:
        """Bytes that weights take once more to be faster; what models share is counted for each of them."""
        return self.network.fast.copies + self.codec.fast.copies

    @cached_property
    def windows(self) -> Windows:
        """The windows of the text encoders."""
        return Windows(windows_of((self.pipeline.tokenizer,)))

    def parts(self, text: str) -> list[Part]:
        """A text in parts that every encoder of prompts takes whole."""
        return divide(text, self.windows.prompt)

    def read_in_parts(self, words: Words) -> list[LongText]:
        """The texts of a request that are longer than the encoders' windows."""
        return long_texts(words.texts(), self.windows)

    def encode(self, words: Words, guided: bool) -> Tensors:
        """The conditioning for one take; with guidance, the batch axis holds first the negative, then the prompt."""
        raise NotImplementedError

    def weighted(self, words: Words, guided: bool) -> Tensors:
        """The conditioning with some words counting more or less."""
        return leaning(words, guided, self.encode, self.summaries)

    def conditioning(self, words: Words, guided: bool) -> Tensors:
        """`encode`, kept for the prompts used last."""
        encode = self.weighted if words.weights else self.encode

        def made() -> Tensors:
            return self.stages.at_work("words", lambda: encode(words, guided))

        return self.conditionings.get((words, guided, torch.are_deterministic_algorithms_enabled()), made)

    def mixed(self, words: Words, guided: bool) -> Tensors:
        """The conditioning, between two prompts if there are two."""
        return mixed(words, guided, self.conditioning)

    def hear(self, sounds: Sounds) -> Hearing:
        """What each take sounds like. Only models that hear as well as read can say.

        Raises:
            ModelError: this one can't.
        """
        raise ModelError(f"this model can't hear ({len(sounds.waveforms)} takes)")

    def scores(self, prompt: str, heard: Hearing) -> list[float]:
        """How like the prompt each take is, -1 to 1.

        Raises:
            ModelError: this model can't hear.
        """
        raise ModelError(f"this model can't compare sounds with words ({len(heard.vectors)} takes, {prompt!r})")

    def render(self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool]) -> Sounds:
        """Make one sound for each seed of the order, alone.

        Raises:
            StoppedByRequest: `stopped` said so between two steps.
            ModelError: the result isn't finite, even in full precision.
        """
        run = self.begin(order)
        while not run.sampling.done:
            if stopped():
                raise StoppedByRequest
            self.advance([run])
            on_step(run.step)
            if run.sampling.done:
                self.go_on(run)
        return self.finish(run)

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> Run:
        """Encode the words and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = repeated(self.mixed(order.words, guided), len(order.seeds), guided)
        return started(order, conditioning, self.codec, self.scheduler_config)

    @torch.inference_mode()
    def advance(self, runs: Sequence[Run]) -> None:
        """Take several runs of this model one evaluation further, in one call of the network.

        Their latents must have the same shape but for the number of takes; each has its own noise level.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        step_together(runs, self.network, self.codec)

    @torch.inference_mode()
    def go_on(self, run: Run) -> None:
        """A run's steps are done: if it continues a sound, join what it made, and begin the next window if there is
        one. Then `run.sampling` isn't done any more.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        next_steps(run, self.codec)

    @torch.inference_mode()
    def preview(self, run: Run) -> Sounds:
        """The run's first take as it will be, roughly: decoded from the latents that the network now expects. Of a
        sound that is continued, as far as it has come.

        Raises:
            RuntimeError: no step was taken yet.
            ModelError: the result isn't finite, even in full precision.
        """
        return expected(run, self._playing(run))

    @torch.inference_mode()
    def finish(self, run: Run) -> Sounds:
        """Decode a run that is done.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        return finished(run, self._playing(run))

    @torch.inference_mode()
    def sounding(self, run: Run) -> Sounding:
        """A run that is done, decoded up to the vocoder, whose pieces can then be heard one after the other.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        return piece_by_piece(run, self._playing(run))

    def _playing(self, run: Run) -> Codec:
        """The codec, at the pitch that the words name; what is made of a given sound keeps that sound's own."""
        return self.codec.playing(None if run.order.given is not None else named_note(run.order.words))
