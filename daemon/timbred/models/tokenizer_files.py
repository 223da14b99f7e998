"""The windows of a model's text encoders, from its tokenizers' files alone: without torch and transformers.

The files are untrusted. Only regular files of bounded size are read, and only tokenizers made of steps whose time is
linear in the text: no regular expressions or long replacements from the folder.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from timbred.errors import ModelError, TimbredError
from timbred.models import checkpoint
from timbred.models.long_texts import Window, Windows, window_tokens
from timbred.models.pocket import is_pocket
from timbred.models.pocket_words import MAX_WORDS, count_words
from timbred.process_memory import ByteCache, RecentDict

log = logging.getLogger(__name__)

MAX_TOKENIZER_BYTES = 8_000_000
"""Largest size of a tokenizer's files; those of RoBERTa and T5 have 2 to 4 million bytes."""

MAX_CACHED_BYTES = 16_000_000
"""Size of the files whose tokenizers are kept in memory, where they take several times as much."""

UNUSABLE_TOKENIZER_BYTES = 1_000
"""Size that counts for a tokenizer that can't be used."""

MAX_CACHED_FOLDERS = 32
"""Model folders whose configurations are kept."""

MAX_ADDED_TOKENS = 4
"""Tokens that a tokenizer adds to a text: a first and a last one, and one for a space before the first word."""

MAX_REPLACEMENT_CHARACTERS = 8
"""Longest replacement of a normalizer."""

TOKENIZER_COMPONENTS = ("tokenizer", "tokenizer_2")
TOKENIZER_FILE_NAMES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt")

POCKET_WORDS = "words of the family pocket"
"""Kind of what stands for a tokenizer in this family, which has no files for it."""

PROMPT, TRANSCRIPTION = "prompt", "transcription"

Identity = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and modification time of files."""


class UncountableTokens(Exception):
    """A tokenizer whose tokens can't be counted here; the message says why."""


@dataclass(frozen=True)
class TokenizerFolder:
    """A tokenizer of a model.

    Attributes:
        folder: its path.
        kind: its class.
        tokens: the window that it names.
        configuration: the content of `tokenizer_config.json`.
        reads: whether it reads prompts or transcriptions.
    """

    folder: Path
    kind: str
    tokens: int
    configuration: dict[str, Any]
    reads: str

    def holds_all(self, text: str) -> bool:
        """Return True if a text is certainly within the window, without counting tokens.

        A character of ASCII becomes at most one token.
        """
        return self.kind != "VitsTokenizer" and text.isascii() and len(text) + MAX_ADDED_TOKENS <= self.tokens


@dataclass(frozen=True)
class ModelTokenizers:
    """The tokenizers of a model that name a window, and the identity of all its tokenizers' files."""

    identity: Identity
    tokenizers: tuple[TokenizerFolder, ...]


class TokenizerFiles:
    """The tokenizers of model folders, cached until their files change. Thread-safe."""

    def __init__(self) -> None:
        self._tokenizers = RecentDict[Path, ModelTokenizers](MAX_CACHED_FOLDERS)
        self._lock = threading.Lock()
        self._counters = ByteCache[Identity, _CachedCounter](MAX_CACHED_BYTES, lambda kept: kept.size)

    def describe(self, folder: Path, name: str, recheck: bool = True) -> ModelTokenizers:
        """Return the tokenizers of a model. Reads small files only, and none if they are cached and `recheck` is false.

        Raises:
            MissingWeights, ModelError: a file is missing or can't be read.
        """
        with self._lock:
            model_tokenizers = self._tokenizers.get(folder)
        if model_tokenizers is not None and not recheck:
            return model_tokenizers
        names = [
            checkpoint.INDEX_NAME,
            *(f"{part}/{file}" for part in TOKENIZER_COMPONENTS for file in TOKENIZER_FILE_NAMES),
        ]
        identity = _identity([folder / file_name for file_name in names])
        if model_tokenizers is None or model_tokenizers.identity != identity:
            model_tokenizers = ModelTokenizers(identity, _read_tokenizers(folder, name))
            with self._lock:
                self._tokenizers[folder] = model_tokenizers
        return model_tokenizers

    def windows(self, folder: Path, name: str) -> Windows:
        """Return the windows of a model as far as they are known; takes up to tenths of a second for new files.

        Raises:
            MissingWeights, ModelError: a file is missing or can't be read.
        """
        windows_by_text: dict[str, list[Window]] = {PROMPT: [], TRANSCRIPTION: []}
        unknown: set[str] = set()
        for tokenizer in self.describe(folder, name).tokenizers:
            count = self._counter(tokenizer, name)
            if count is None:
                unknown.add(tokenizer.reads)
            else:
                windows_by_text[tokenizer.reads].append(Window(count, tokenizer.tokens))
        known_windows = {
            reads: () if reads in unknown else tuple(windows) for reads, windows in windows_by_text.items()
        }
        return Windows(known_windows[PROMPT], known_windows[TRANSCRIPTION])

    def _counter(self, tokenizer: TokenizerFolder, name: str) -> Callable[[str], int] | None:
        """Return a function that counts the tokens of a text; None if there is none, which is logged once."""
        if tokenizer.kind == POCKET_WORDS:
            return count_words
        files = _files_of(tokenizer)
        identity = _identity(files)

        def load() -> _CachedCounter:
            size = sum(size for _, _, size, _ in identity)
            try:
                return _CachedCounter(_make_counter(tokenizer, files, size, name), size)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  panics of the library are no Exceptions
                reason = f"{type(error).__name__}: {error}"[:200] if not isinstance(error, UncountableTokens) else error
                log.warning("%s: the tokens of its texts aren't counted before it is loaded: %s", name, reason)
                return _CachedCounter(None, UNUSABLE_TOKENIZER_BYTES)

        return self._counters.get(identity, load).count


@dataclass(frozen=True)
class _CachedCounter:
    """A function that counts tokens, or None for a tokenizer that can't be used, and the size of its files."""

    count: Callable[[str], int] | None
    size: int


def _identity(files: list[Path]) -> Identity:
    return tuple(_identity_of(file) for file in files)


def _identity_of(file: Path) -> tuple[str, int, int, int]:
    """Return the identity of a file, with zeros if it is missing."""
    try:
        status = file.stat()
    except OSError:
        return str(file), 0, 0, 0
    return str(file), status.st_ino, status.st_size, status.st_mtime_ns


def _read_tokenizers(folder: Path, name: str) -> tuple[TokenizerFolder, ...]:
    if is_pocket(folder):
        return (TokenizerFolder(folder, POCKET_WORDS, MAX_WORDS, {}, PROMPT),)
    index = checkpoint.read_json(folder / checkpoint.INDEX_NAME, name, "install the model again")
    tokenizers: list[TokenizerFolder] = []
    family = checkpoint.family_in(index, folder, name)
    for part in TOKENIZER_COMPONENTS:
        if part not in family.components:
            continue
        kind = checkpoint.class_of(index, part, name, "install the model again")
        configuration = checkpoint.read_json(folder / part / "tokenizer_config.json", name, "install the model again")
        longest = configuration.get("model_max_length", 1e30)
        if isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1:
            raise ModelError(f"{name}: model_max_length in {folder / part} is {longest!r}; install the model again")
        tokens = window_tokens(min(longest, family.max_tokens.get(part, longest)))
        reads = TRANSCRIPTION if kind == "VitsTokenizer" else PROMPT
        if tokens is not None:
            tokenizers.append(TokenizerFolder(folder / part, kind, tokens, configuration, reads))
    return tuple(tokenizers)


def _files_of(tokenizer: TokenizerFolder) -> list[Path]:
    """Return the files that a tokenizer is read from."""
    whole = tokenizer.folder / "tokenizer.json"
    vocabulary, merges = tokenizer.folder / "vocab.json", tokenizer.folder / "merges.txt"
    if tokenizer.kind == "VitsTokenizer":
        return [vocabulary]
    if tokenizer.kind.startswith("Roberta") and not whole.exists() and vocabulary.exists():
        return [vocabulary, merges]
    return [whole]


def _make_counter(tokenizer: TokenizerFolder, files: list[Path], size: int, name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text.

    Raises:
        UncountableTokens: the tokenizer can't be used; the message says why.
        Exception: from the library, for a damaged file.
    """
    for file in files:
        if not file.exists():
            raise UncountableTokens(f"there is no {file}")
        try:
            checkpoint.check_regular_file(file, name)
        except TimbredError as error:
            raise UncountableTokens(str(error)) from error
    if size > MAX_TOKENIZER_BYTES:
        raise UncountableTokens(f"{files[0]} has {size / 1e6:.4g} MB, and may have {MAX_TOKENIZER_BYTES / 1e6:.4g}")
    if tokenizer.kind == "VitsTokenizer":
        return _letter_counter(files[0], tokenizer.configuration)
    if len(files) == 2:
        return _count_with(_load_byte_pairs(files[0], files[1], tokenizer.configuration))
    from tokenizers import Tokenizer

    content = files[0].read_bytes()
    _check_steps(content, files[0])
    return _count_with(Tokenizer.from_buffer(content))


def _count_with(tokenizer: Any) -> Callable[[str], int]:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode_batch_fast([text])[0].ids)  # releases the GIL, unlike `encode`


def _load_byte_pairs(vocabulary: Path, merges: Path, configuration: dict[str, Any]) -> Any:
    """Return RoBERTa's tokenizer from its two files: byte pairs, between a first and a last token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    prefix = bool(configuration.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    first, last = _token(configuration, "cls", "<s>"), _token(configuration, "sep", "</s>")
    first_number, last_number = tokenizer.token_to_id(first), tokenizer.token_to_id(last)
    if first_number is None or last_number is None:
        raise UncountableTokens(f"{vocabulary} lacks {first} or {last}")
    usual = {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    special = [first, last, *(_token(configuration, key, token) for key, token in usual.items())]
    tokenizer.add_special_tokens([token for token in special if tokenizer.token_to_id(token) is not None])
    tokenizer.post_processor = processors.RobertaProcessing((last, last_number), (first, first_number))
    return tokenizer


def _token(configuration: dict[str, Any], key: str, usual: str) -> str:
    """Return a special token from a configuration: a string, or an object with its `content`."""
    named = configuration.get(f"{key}_token", usual)
    content = named.get("content") if isinstance(named, dict) else named
    return content if isinstance(content, str) else usual


def _letter_counter(vocabulary: Path, configuration: dict[str, Any]) -> Callable[[str], int]:
    """Return VITS' counter: a token for each known letter, with a blank before, between and after them."""
    if configuration.get("phonemize", True):
        raise UncountableTokens("it reads phonemes, which only the engine knows")
    if configuration.get("is_uroman", False):
        raise UncountableTokens("it reads romanized text, which only the engine knows")
    letters = json.loads(vocabulary.read_text("utf-8"))
    if not isinstance(letters, dict):
        raise UncountableTokens(f"{vocabulary} is no object")
    normalized, blanks = configuration.get("normalize", True), configuration.get("add_blank", True)
    romanian = configuration.get("language") == "ron"

    def count(text: str) -> int:
        if normalized:
            text = "".join(letter if letter in letters else letter.lower() for letter in text)
        if romanian:
            text = text.replace("ț", "ţ")
        if normalized:
            text = "".join(letter for letter in text if letter in letters).strip()
        return 2 * len(text) + 1 if blanks else len(text)

    return count


class _Model(msgspec.Struct):
    """The model in `tokenizer.json`, without its vocabulary."""

    type: str = "BPE"


class _TokenizerFile(msgspec.Struct):
    """`tokenizer.json`: https://github.com/huggingface/tokenizers."""

    model: _Model
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


_LINEAR_MODELS = frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"})

_LINEAR_STEPS = frozenset(
    {
        "BertNormalizer", "BertPreTokenizer", "BertProcessing", "ByteLevel", "Lowercase", "Metaspace", "NFC", "NFD",
        "NFKC", "NFKD", "Nmt", "Precompiled", "Replace", "RobertaProcessing", "Sequence", "Split", "Strip",
        "StripAccents", "TemplateProcessing", "Whitespace", "WhitespaceSplit",
    }
)  # fmt: skip
"""Normalizers, pre-tokenizers and post-processors whose time is linear in the text."""


def _check_steps(content: bytes, file: Path) -> None:
    """Check that a tokenizer consists of known steps.

    Raises:
        UncountableTokens: a step isn't known.
        msgspec.ValidationError, msgspec.DecodeError: the file is damaged.
    """
    content_types = msgspec.json.decode(content, type=_TokenizerFile)
    if content_types.model.type not in _LINEAR_MODELS:
        raise UncountableTokens(f"{file} has a model of the kind {content_types.model.type!r}")
    for step in (content_types.normalizer, content_types.pre_tokenizer, content_types.post_processor):
        if step is not None:
            _check_step(step, file)


def _check_step(step: dict[str, Any], file: Path) -> None:
    kind = step.get("type")
    if kind not in _LINEAR_STEPS:
        raise UncountableTokens(f"{file} has a step of the kind {kind!r}")
    if kind == "Replace":
        pattern, content = step.get("pattern"), step.get("content")
        usual = isinstance(pattern, dict) and (set(pattern) == {"String"} or pattern == {"Regex": " {2,}"})
        if not usual or not isinstance(content, str) or len(content) > MAX_REPLACEMENT_CHARACTERS:
            raise UncountableTokens(f"{file} replaces {str(pattern)[:60]}")
    if kind == "Split":
        pattern = step.get("pattern")
        if not isinstance(pattern, dict) or set(pattern) != {"String"}:
            raise UncountableTokens(f"{file} splits at {str(pattern)[:60]}")
    for key in ("normalizers", "pretokenizers", "processors"):
        for inner in step.get(key) or ():
            _check_step(inner, file)
