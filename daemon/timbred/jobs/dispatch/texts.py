"""Counts before a request starts: which of its texts are longer than its model's text encoders read at once."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from timbred.engine.kept import RecentDict
from timbred.engine.long_texts import long_texts, texts_of
from timbred.engine.registry import Registry
from timbred.engine.tokenizer_files import TRANSCRIPTION, TokenizerFiles
from timbred.engine.wire import Words
from timbred.errors import TimbredError
from timbred.jobs.parameters import Parameters
from timbred.protocol.messages import HeardText

log = logging.getLogger(__name__)

Heard = tuple[HeardText, ...]

COUNTED_WITHIN_S = 5.0
"""Seconds that a request waits at most until its texts are counted: usually hundredths."""

MAX_KEPT_COUNTS = 64
"""Texts whose counts are kept, so that the same words with another seed wait for nothing."""


class Texts:
    """Counts texts as the engine does, from the model folders' tokenizers. Where that can't be done nothing is said
    before the start, and the engine's own warning is all there is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._files = TokenizerFiles()
        self._kept = RecentDict[object, Heard](MAX_KEPT_COUNTS)
        self._turn = asyncio.Lock()
        self.late: asyncio.Future[Heard] | None = None
        """A count that took too long and may never end."""
        self._counting: asyncio.Future[Heard] | None = None
        self._stopped = False

    def at_once(self, parameters: Parameters) -> Heard | None:
        """The long texts of a request; None where they have to be counted. Reads short files only."""
        words = parameters.words
        if self._stopped or (self.late is not None and not self.late.done()):
            return ()
        entry = self._registry[parameters.model]
        try:
            limited = self._files.limited(entry.folder, entry.card.name)
        except TimbredError as error:  # the model can't be loaded either, and the request ends with the reason
            log.debug("%s", error)
            return ()
        texts = texts_of(words)
        spoken = texts.pop(TRANSCRIPTION, "")
        pairs = [
            (one, text) for one in limited for text in ([spoken] if one.reads == TRANSCRIPTION else texts.values())
        ]
        if all(not text or one.holds_all(text) for one, text in pairs):
            return ()
        return self._kept.get(self._key(entry.folder, words))

    def stop(self) -> None:
        """Have nobody wait for a count any more."""
        self._stopped = True
        if self._counting is not None:
            self._counting.cancel()

    def _key(self, folder: Path, words: Words) -> object:
        return self._files.identity(folder), tuple(texts_of(words).items())

    async def count(self, parameters: Parameters) -> Heard:
        """Count the texts of a request in a thread; empty where that can't be done in time."""
        entry, words = self._registry[parameters.model], parameters.words
        async with self._turn:
            known = self.at_once(parameters)
            if known is not None:
                return known

            key = self._key(entry.folder, words)

            def counted() -> Heard:
                found = long_texts(words, self._files.windows(entry.folder, entry.card.name))
                return tuple(
                    HeardText(key=text.key, characters=text.characters, heard=text.read, parts=text.parts)
                    for text in found
                )

            counting = self._counting = in_own_thread(counted, "count-texts")
            done, _ = await asyncio.wait([counting], timeout=COUNTED_WITHIN_S)
            if not done:
                self.late = counting
                log.warning(
                    "%s: its texts weren't counted within %g s; nothing is counted before that has ended, and long "
                    "texts are told once the model reads them", entry.card.name, COUNTED_WITHIN_S,
                )  # fmt: skip
                return ()
            if counting.cancelled():
                return ()
            try:
                found = counting.result()
            except Exception as error:  # noqa: BLE001  the request goes on, and the engine tells of long texts
                log.warning("%s: its texts aren't counted before it reads them: %s", entry.card.name, error)
                return ()
            self._kept[key] = found
            return found


def in_own_thread(work: Callable[[], Heard], name: str) -> "asyncio.Future[Heard]":
    """The result of a function that runs in a thread of its own, which keeps no process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Heard] = loop.create_future()

    def tell(set_outcome: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if future.done() else set_outcome())

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  handed to the one who waits for it
            failure = error
            tell(lambda: future.set_exception(failure))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
