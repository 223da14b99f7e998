"""Windows of a model folder's text encoders, from its tokenizers' files alone: without torch and transformers.

The files are foreign. Only plain files of bounded size are read, and only tokenizers made of steps whose time grows
with the text and no faster: no regular expressions or long replacements of a folder's own.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from timbred.caches import ByteCache, RecentDict
from timbred.errors import ModelError, TimbredError
from timbred.models import checkpoint
from timbred.models.long_texts import Window, Windows, window_tokens

log = logging.getLogger(__name__)

MAX_TOKENIZER_BYTES = 8_000_000
"""Bytes that a tokenizer's files may have; those of RoBERTa and T5 have 2 to 4 million."""

MAX_KEPT_BYTES = 16_000_000
"""Bytes of the files whose tokenizers are kept in memory, where they take several times as much."""

FAILED_BYTES = 1_000
"""What it takes to remember that a tokenizer can't be used."""

MAX_KEPT_FOLDERS = 32
"""Model folders whose configurations are remembered."""

MAX_ADDED_TOKENS = 4
"""Tokens that a tokenizer adds to a text: a first and a last one, and one for a space before the first word."""

MAX_REPLACEMENT_CHARACTERS = 8
"""Characters that a normalizer may put in place of others."""

PARTS = ("tokenizer", "tokenizer_2")
FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt")

PROMPT, TRANSCRIPTION = "prompt", "transcription"

Identity = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and time of files."""


class Uncountable(Exception):
    """A tokenizer whose tokens can't be counted here; says why."""


@dataclass(frozen=True)
class TokenizerFolder:
    """A tokenizer of a model: its folder, its class, the window that it names, and its configuration. `reads` says
    whether it reads prompts or transcriptions."""

    folder: Path
    kind: str
    tokens: int
    configuration: dict[str, Any]
    reads: str

    def holds_all(self, text: str) -> bool:
        """Tell without counting whether a text is surely within the window. False where that isn't known.

        A character of ASCII becomes at most one token.
        """
        return self.kind != "VitsTokenizer" and text.isascii() and len(text) + MAX_ADDED_TOKENS <= self.tokens


@dataclass(frozen=True)
class Described:
    """Tokenizers of a model that name a window, and the identity of all its tokenizers' files."""

    identity: Identity
    tokenizers: tuple[TokenizerFolder, ...]


class TokenizerFiles:
    """Tokenizers of model folders; those used last are kept as long as their files stay as they are. For use from
    several threads."""

    def __init__(self) -> None:
        self._described = RecentDict[Path, Described](MAX_KEPT_FOLDERS)
        self._lock = threading.Lock()
        self._counters = ByteCache[Identity, _Kept](MAX_KEPT_BYTES, lambda kept: kept.size)

    def describe(self, folder: Path, name: str, again: bool = True) -> Described:
        """The tokenizers of a model. Reads short files only, and nothing where they are known and `again` is false.

        Raises:
            MissingWeights, ModelError: a file isn't there or can't be read.
        """
        with self._lock:
            known = self._described.get(folder)
        if known is not None and not again:
            return known
        names = [checkpoint.INDEX, *(f"{part}/{file}" for part in PARTS for file in FILES)]
        identity = _identity([folder / one for one in names])
        if known is None or known.identity != identity:
            known = Described(identity, _limited(folder, name))
            with self._lock:
                self._described[folder] = known
        return known

    def windows(self, folder: Path, name: str) -> Windows:
        """The windows of a model, as far as they are known; takes up to tenths of a second for files that are new.

        Raises:
            MissingWeights, ModelError: a file isn't there or can't be read.
        """
        found: dict[str, list[Window]] = {PROMPT: [], TRANSCRIPTION: []}
        unknown: set[str] = set()
        for one in self.describe(folder, name).tokenizers:
            count = self._counter(one, name)
            if count is None:
                unknown.add(one.reads)
            else:
                found[one.reads].append(Window(count, one.tokens))
        known = {reads: () if reads in unknown else tuple(windows) for reads, windows in found.items()}
        return Windows(known[PROMPT], known[TRANSCRIPTION])

    def _counter(self, tokenizer: TokenizerFolder, name: str) -> Callable[[str], int] | None:
        """Counts the tokens of a text; None where that can't be done, which is logged once."""
        files = _files_of(tokenizer)
        identity = _identity(files)

        def made() -> _Kept:
            size = sum(size for _, _, size, _ in identity)
            try:
                return _Kept(_made(tokenizer, files, size, name), size)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  panics of the library are no Exceptions
                reason = f"{type(error).__name__}: {error}"[:200] if not isinstance(error, Uncountable) else error
                log.warning("%s: the tokens of its texts aren't counted before it is loaded: %s", name, reason)
                return _Kept(None, FAILED_BYTES)

        return self._counters.get(identity, made).count


@dataclass(frozen=True)
class _Kept:
    """A tokenizer that counts, or None for one that can't be used, and the bytes of its files."""

    count: Callable[[str], int] | None
    size: int


def _identity(files: list[Path]) -> Identity:
    return tuple(_identity_of(file) for file in files)


def _identity_of(file: Path) -> tuple[str, int, int, int]:
    """Zeros for a file that isn't there."""
    try:
        found = file.stat()
    except OSError:
        return str(file), 0, 0, 0
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns


def _limited(folder: Path, name: str) -> tuple[TokenizerFolder, ...]:
    index = checkpoint.read_json(folder / checkpoint.INDEX, name, "get the model anew")
    found: list[TokenizerFolder] = []
    for part in PARTS:
        if part not in index:
            continue
        kind = checkpoint.class_of(index, part, name, "get the model anew")
        configuration = checkpoint.read_json(folder / part / "tokenizer_config.json", name, "get the model anew")
        longest = configuration.get("model_max_length", 1e30)
        if isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1:
            raise ModelError(f"{name}: model_max_length in {folder / part} is {longest!r}; get the model anew")
        tokens = window_tokens(longest)
        reads = TRANSCRIPTION if kind == "VitsTokenizer" else PROMPT
        if tokens is not None:
            found.append(TokenizerFolder(folder / part, kind, tokens, configuration, reads))
    return tuple(found)


def _files_of(tokenizer: TokenizerFolder) -> list[Path]:
    """The files that a tokenizer is read from."""
    whole = tokenizer.folder / "tokenizer.json"
    vocabulary, merges = tokenizer.folder / "vocab.json", tokenizer.folder / "merges.txt"
    if tokenizer.kind == "VitsTokenizer":
        return [vocabulary]
    if tokenizer.kind.startswith("Roberta") and not whole.exists() and vocabulary.exists():
        return [vocabulary, merges]
    return [whole]


def _made(tokenizer: TokenizerFolder, files: list[Path], size: int, name: str) -> Callable[[str], int]:
    """A function that counts the tokens of a text.

    Raises:
        Uncountable: says why.
        Exception: from the library, for a damaged file.
    """
    for file in files:
        if not file.exists():
            raise Uncountable(f"there is no {file}")
        try:
            checkpoint.refuse_what_would_not_end(file, name)
        except TimbredError as error:
            raise Uncountable(str(error)) from error
    if size > MAX_TOKENIZER_BYTES:
        raise Uncountable(f"{files[0]} has {size / 1e6:.4g} MB, and may have {MAX_TOKENIZER_BYTES / 1e6:.4g}")
    if tokenizer.kind == "VitsTokenizer":
        return _letters(files[0], tokenizer.configuration)
    if len(files) == 2:
        return _counting(_byte_pairs(files[0], files[1], tokenizer.configuration))
    from tokenizers import Tokenizer

    content = files[0].read_bytes()
    _check_steps(content, files[0])
    return _counting(Tokenizer.from_buffer(content))


def _counting(tokenizer: Any) -> Callable[[str], int]:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode_batch_fast([text])[0].ids)  # lets other threads run, unlike `encode`


def _byte_pairs(vocabulary: Path, merges: Path, configuration: dict[str, Any]) -> Any:
    """RoBERTa's tokenizer of two files: pairs of bytes, between a first and a last token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    found = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    prefix = bool(configuration.get("add_prefix_space", False))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    first, last = _token(configuration, "cls", "<s>"), _token(configuration, "sep", "</s>")
    first_number, last_number = found.token_to_id(first), found.token_to_id(last)
    if first_number is None or last_number is None:
        raise Uncountable(f"{vocabulary} lacks {first} or {last}")
    usual = {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    special = [first, last, *(_token(configuration, key, token) for key, token in usual.items())]
    found.add_special_tokens([token for token in special if found.token_to_id(token) is not None])
    found.post_processor = processors.RobertaProcessing((last, last_number), (first, first_number))
    return found


def _token(configuration: dict[str, Any], key: str, usual: str) -> str:
    """A special token as a configuration names it: a string, or an object with its `content`."""
    named = configuration.get(f"{key}_token", usual)
    content = named.get("content") if isinstance(named, dict) else named
    return content if isinstance(content, str) else usual


def _letters(vocabulary: Path, configuration: dict[str, Any]) -> Callable[[str], int]:
    """VITS' tokenizer: a token for each letter that it knows, with a blank before, between and after them."""
    if configuration.get("phonemize", True):
        raise Uncountable("it reads phonemes, which only the engine knows")
    if configuration.get("is_uroman", False):
        raise Uncountable("it reads romanized text, which only the engine knows")
    known = json.loads(vocabulary.read_text("utf-8"))
    if not isinstance(known, dict):
        raise Uncountable(f"{vocabulary} is no object")
    normalized, blanks = configuration.get("normalize", True), configuration.get("add_blank", True)
    romanian = configuration.get("language") == "ron"

    def count(text: str) -> int:
        if normalized:
            text = "".join(letter if letter in known else letter.lower() for letter in text)
        if romanian:
            text = text.replace("ț", "ţ")
        if normalized:
            text = "".join(letter for letter in text if letter in known).strip()
        return 2 * len(text) + 1 if blanks else len(text)

    return count


class _Model(msgspec.Struct):
    """The model in `tokenizer.json`, its vocabulary passed over."""

    type: str = "BPE"


class _TokenizerFile(msgspec.Struct):
    """`tokenizer.json`: https://github.com/huggingface/tokenizers."""

    model: _Model
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


_MODELS = frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"})

_STEPS = frozenset(
    {
        "BertNormalizer", "BertPreTokenizer", "BertProcessing", "ByteLevel", "Lowercase", "Metaspace", "NFC", "NFD",
        "NFKC", "NFKD", "Nmt", "Precompiled", "Replace", "RobertaProcessing", "Sequence", "Strip", "StripAccents",
        "TemplateProcessing", "Whitespace", "WhitespaceSplit",
    }
)  # fmt: skip
"""Normalizers, pre-tokenizers and post-processors whose time grows with the text and no faster."""


def _check_steps(content: bytes, file: Path) -> None:
    """See that a tokenizer is made of known steps.

    Raises:
        Uncountable: names the one that isn't.
        msgspec.ValidationError, msgspec.DecodeError: the file is damaged.
    """
    found = msgspec.json.decode(content, type=_TokenizerFile)
    if found.model.type not in _MODELS:
        raise Uncountable(f"{file} has a model of the kind {found.model.type!r}")
    for step in (found.normalizer, found.pre_tokenizer, found.post_processor):
        if step is not None:
            _check_step(step, file)


def _check_step(step: dict[str, Any], file: Path) -> None:
    kind = step.get("type")
    if kind not in _STEPS:
        raise Uncountable(f"{file} has a step of the kind {kind!r}")
    if kind == "Replace":
        pattern, content = step.get("pattern"), step.get("content")
        usual = isinstance(pattern, dict) and (set(pattern) == {"String"} or pattern == {"Regex": " {2,}"})
        if not usual or not isinstance(content, str) or len(content) > MAX_REPLACEMENT_CHARACTERS:
            raise Uncountable(f"{file} replaces {str(pattern)[:60]}")
    for key in ("normalizers", "pretokenizers", "processors"):
        for inner in step.get(key) or ():
            _check_step(inner, file)
