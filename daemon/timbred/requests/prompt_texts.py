"""Counts of tokens: which texts of a request are longer than its model's text encoders read in one part."""

import asyncio
import logging
import threading
from collections.abc import Callable

from timbred.errors import TimbredError
from timbred.ipc.engine_messages import PromptInputs
from timbred.models.long_texts import LongText, long_texts
from timbred.models.registry import Registry
from timbred.models.tokenizer_files import TRANSCRIPTION, ModelTokenizers, TokenizerFiles
from timbred.process_memory import RecentDict
from timbred.protocol.messages import HeardText
from timbred.requests.resolve import Parameters

log = logging.getLogger(__name__)

LongTexts = tuple[HeardText, ...]
CountResult = tuple[ModelTokenizers, LongTexts]

COUNTED_WITHIN_S = 5.0
"""Seconds that a request waits at most for the count of its texts, which usually takes hundredths of a second."""

MAX_KEPT_COUNTS = 64
"""Requests whose counts are kept, so that the same texts with another seed aren't counted again."""


class TextCounter:
    """Counts texts as the engine does, with the tokenizers in the model folders.

    Where that fails, `queued` and `started` name no long texts, and the engine's warning is the only one.

    Args:
        registry: The models.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._files = TokenizerFiles()
        self._kept = RecentDict[object, LongTexts](MAX_KEPT_COUNTS)
        self._turn = asyncio.Lock()
        self.late: asyncio.Future[CountResult] | None = None
        """A count that took longer than `COUNTED_WITHIN_S` and may never end."""
        self._counting: asyncio.Future[CountResult] | None = None
        self._stopped = False

    def count_if_known(self, parameters: Parameters, resident: bool = False) -> LongTexts | None:
        """Return the long texts of a request, or None if they have to be counted.

        Reads only small files, and none of a `resident` model whose tokenizers are known.
        """
        inputs = parameters.inputs
        if self._stopped or (self.late is not None and not self.late.done()):
            return ()
        entry = self._registry[parameters.model]
        try:
            described = self._files.describe(entry.folder, entry.card.name, recheck=not resident)
        except TimbredError as error:  # the model can't be loaded either: the job fails with the reason
            log.debug("%s", error)
            return ()
        texts = inputs.texts()
        spoken = texts.pop(TRANSCRIPTION, "")
        pairs = [
            (one, text)
            for one in described.tokenizers
            for text in ([spoken] if one.reads == TRANSCRIPTION else texts.values())
        ]
        if all(not text or one.holds_all(text) for one, text in pairs):
            return ()
        return self._kept.get(_key(described, inputs))

    def stop(self) -> None:
        """Cancel the count in progress and start no other."""
        self._stopped = True
        if self._counting is not None:
            self._counting.cancel()

    async def count(self, parameters: Parameters) -> LongTexts:
        """Count the texts of a request in a thread; return none if that fails or takes too long."""
        entry, inputs = self._registry[parameters.model], parameters.inputs
        folder, name = entry.folder, entry.card.name
        async with self._turn:
            known = self.count_if_known(parameters, resident=True)
            if known is not None:
                return known

            def count_texts() -> CountResult:
                found = long_texts(inputs.texts(), self._files.windows(folder, name))
                return self._files.describe(folder, name), tuple(map(_as_event_text, found))

            counting = self._counting = in_own_thread(count_texts, "count-texts")
            done, _ = await asyncio.wait([counting], timeout=COUNTED_WITHIN_S)
            if not done:
                self.late = counting
                counting.add_done_callback(_log_late)
                log.warning(
                    "%s: its texts weren't counted within %g s; no other text is counted until that count ends, "
                    "and warnings of long texts come only once the model reads them", name, COUNTED_WITHIN_S,
                )  # fmt: skip
                return ()
            if counting.cancelled():
                return ()
            try:
                described, found = counting.result()
            except Exception as error:  # noqa: BLE001  the job continues, and the engine warns of long texts
                log.warning("%s: its texts aren't counted before it reads them: %s", name, error)
                return ()
            self._kept[_key(described, inputs)] = found
            return found


def _key(described: ModelTokenizers, inputs: PromptInputs) -> object:
    """Return everything that a count depends on: the tokenizers' files, and the texts."""
    return described.identity, tuple(inputs.texts().items())


def _as_event_text(text: LongText) -> HeardText:
    return HeardText(key=text.key, characters=text.characters, heard=text.read, parts=text.parts)


def _log_late(counting: "asyncio.Future[CountResult]") -> None:
    error = None if counting.cancelled() else counting.exception()
    if error is not None:
        log.warning("texts couldn't be counted: %s", error)


def in_own_thread(work: Callable[[], CountResult], name: str) -> "asyncio.Future[CountResult]":
    """Call a function in a separate daemon thread; return a future of its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[CountResult] = loop.create_future()

    def resolve(set_outcome: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if future.done() else set_outcome())
        except RuntimeError:
            log.debug("%s: its result is dropped, the event loop is closed", name)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  set on the future; panics of Rust are no Exceptions
            failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            resolve(lambda: future.set_exception(failure))
        else:
            resolve(lambda: future.set_result(result))

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
