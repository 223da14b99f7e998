"""Components of a checkpoint: loaded, shared by content, and converted from `.bin` weights to safetensors.

`python -m timbred.engine.families.component_loader NAME FOLDER` converts a checkpoint. `.bin` files are read with
`weights_only`, which opens nothing but tensors.

The libraries map a weight file and return views. A view's page is read at its first use, possibly during a step, and
all pages are released with the last view, which takes 50 ms for each GB; both with the GIL held. Therefore files are
read before they are mapped, and their pages are released in small blocks.
"""

import ctypes
import hashlib
import mmap
import os
import pickle
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from timbred.disk import rename_to_free_name
from timbred.errors import ModelError, TimbredError, first_line
from timbred.ipc.socket_folder import atomic_write
from timbred.models import install
from timbred.models.checkpoint import Checkpoint, inspect, weight_files

SAFETENSORS_STEMS = {"diffusion_pytorch_model": "diffusion_pytorch_model", "pytorch_model": "model"}
"""Beginnings of the names of `.bin` files, and the names that the converted files begin with."""

library_lock = threading.Lock()
"""Held while a library constructs a component.

`accelerate` replaces `torch.nn.Module.register_parameter` for the whole process meanwhile: parameters that another
thread assigns in that time lose their values.
"""

_READ_BLOCK_BYTES = 1 << 26
_RELEASE_BLOCK_BYTES = 1 << 24
_HASH_BLOCK_BYTES = 1 << 22
_MAPS_FILE = Path("/proc/self/maps")


def read_into_page_cache(files: Sequence[Path]) -> None:
    """Read files into the page cache, without the GIL."""
    with mmap.mmap(-1, _READ_BLOCK_BYTES) as buffer:  # unlike an array, not zeroed while holding the GIL
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def convert_weights(
    module: torch.nn.Module,
    precision: torch.dtype,
    unconverted_names: frozenset[str],
    files: Sequence[Path],
    on_host: bool,
) -> None:
    """Convert a module's floating-point weights to a precision, and detach them from their files where needed.

    Args:
        module: A module whose tensors are views of mapped files.
        precision: Target dtype.
        unconverted_names: Names; weights with one of them in their path keep their dtype.
        files: The mapped files.
        on_host: True if the module stays in host memory: views of the right dtype are kept, and their pages are
            loaded. False if it moves to a device: nothing stays a view.
    """
    views: list[torch.Tensor] = []

    def convert(path: str, tensor: torch.Tensor) -> torch.Tensor:
        unconverted = not tensor.is_floating_point() or not unconverted_names.isdisjoint(path.split("."))
        target_dtype = tensor.dtype if unconverted else precision
        if on_host and tensor.dtype == target_dtype:
            _load_pages(tensor)
            return tensor
        views.append(tensor)
        return tensor.to(target_dtype, copy=True)

    for path, parameter in module.named_parameters():
        parameter.data = convert(path, parameter.data)
    for path, buffer in tuple(module.named_buffers(remove_duplicate=False)):
        owner, _, name = path.rpartition(".")
        setattr(
            module.get_submodule(owner), name, convert(path, buffer)
        )  # assigning .data of a view would keep the base tensor
    if not on_host:
        release_pages(views, files)


def _load_pages(tensor: torch.Tensor) -> None:
    """Read one element of each page without the GIL, so that no thread that holds it waits for the page."""
    if tensor.is_contiguous():
        tensor.view(-1)[:: max(1, mmap.PAGESIZE // tensor.element_size())].count_nonzero()


def release_pages(views: Sequence[torch.Tensor], files: Sequence[Path]) -> None:
    """Release the pages of mapped files that these tensors are views of; a later use reads them again.

    On Linux only, by madvise(2) and proc_pid_maps(5); elsewhere they are released with the last view.
    """
    if not sys.platform.startswith("linux"):
        return
    advise = ctypes.CDLL(None, use_errno=True).madvise  # ctypes releases the GIL
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    addresses = [view.data_ptr() for view in views]
    for first, end in _mapped_ranges({str(path.resolve()) for path in files}):
        if not any(first <= address < end for address in addresses):
            continue  # mapped by another model
        for address in range(first, end, _RELEASE_BLOCK_BYTES):
            advise(address, min(_RELEASE_BLOCK_BYTES, end - address), mmap.MADV_DONTNEED)


def _mapped_ranges(paths: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the address ranges at which files are mapped: first, and one past the last."""
    for line in _MAPS_FILE.read_text("utf-8", errors="surrogateescape").splitlines():
        addresses, _, rest = line.partition(" ")
        _, slash, path = rest.partition("/")
        if slash + path in paths:
            first, _, end = addresses.partition("-")
            yield int(first, 16), int(end, 16)


@dataclass(frozen=True)
class _SharedEntry:
    files: tuple[Path, ...]
    component: "weakref.ref[torch.nn.Module]"


class SharedComponents:
    """Components in memory, by the content of their files; holds weak references only."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, ...], list[_SharedEntry]] = {}
        self._digests: dict[tuple[object, ...], bytes] = {}

    def find(self, kind: str, files: tuple[Path, ...]) -> torch.nn.Module | None:
        """Return a component of this class that was loaded from files of the same content, or None.

        Contents are compared only where class and sizes agree.
        """
        for entry in self._entries.get(_key(kind, files), []):
            component = entry.component()
            if component is not None and (entry.files == files or self._digest(entry.files) == self._digest(files)):
                return component
        return None

    def add(self, kind: str, files: tuple[Path, ...], component: torch.nn.Module) -> None:
        """Register a component for as long as a model holds it."""
        group = self._entries.setdefault(_key(kind, files), [])
        group[:] = [entry for entry in group if entry.component() is not None]
        group.append(_SharedEntry(files, weakref.ref(component)))

    def _digest(self, files: tuple[Path, ...]) -> bytes:
        """Return the digest of files; they are read once until they change."""
        stats = [(file, file.stat()) for file in files]
        key = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
        if key not in self._digests:
            self._digests[key] = _digest(files)
        return self._digests[key]


def _key(kind: str, files: tuple[Path, ...]) -> tuple[object, ...]:
    return kind, tuple(file.stat().st_size for file in files)


def _digest(files: tuple[Path, ...]) -> bytes:
    content = hashlib.blake2b()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                content.update(block)
    return content.digest()


def quiet_libraries() -> None:
    """Silence progress bars and hints of the libraries, and have them load weights in the calling thread.

    Their own loader threads would compete with the thread that generates.
    """
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    warnings.filterwarnings("ignore", module=r"torchsde\.")  # of rounded noise levels at both ends of its interval
    warnings.filterwarnings("ignore", message=r".*weight_norm` is deprecated", category=FutureWarning)


@cache
def _libraries() -> tuple[Any, Any]:
    """Return transformers and diffusers, quiet; they are imported with the first model that needs them."""
    import diffusers
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    return transformers, diffusers


def component_class(checkpoint: Checkpoint, part: str, own_classes: Mapping[str, type[Any]]) -> type[Any]:
    """Return the class that a component is loaded as."""
    transformers, diffusers = _libraries()
    name = checkpoint.classes[part]
    return own_classes.get(name) or getattr(transformers, name, None) or getattr(diffusers, name)


def load_components(
    checkpoint: Checkpoint,
    name: str,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents,
    own_classes: Mapping[str, type[Any]],
    on_host: bool,
) -> dict[str, Any]:
    """Load every component of a pipeline; of the scheduler only its configuration.

    Args:
        checkpoint: The inspected checkpoint.
        name: Name of the model, for errors.
        precision: Precision of floating-point weights.
        progress: Called with the fraction of loaded components.
        shared: Components that are already in memory.
        own_classes: Classes of components by names that stand for others in the libraries, or aren't there.
        on_host: True if the components run in host memory.

    Raises:
        ModelError: A component can't be loaded; names it and the reason.
    """
    components: dict[str, Any] = {}
    parts = tuple(checkpoint.classes)
    for done, part in enumerate(parts):
        progress(done / len(parts))
        kind = None if part == "scheduler" else component_class(checkpoint, part, own_classes)
        components[part] = _load(checkpoint, part, kind, name, precision, shared, on_host)
    progress(1.0)
    return components


def _load(
    checkpoint: Checkpoint,
    part: str,
    kind: type[Any] | None,
    name: str,
    precision: torch.dtype,
    shared: SharedComponents,
    on_host: bool,
) -> Any:
    """Load a component as a class; None loads the configuration of a scheduler."""
    folder = checkpoint.folder / part
    try:
        if kind is None:
            return _libraries()[1].DDIMScheduler.load_config(str(folder))
        if part not in checkpoint.family.weighted:
            return kind.from_pretrained(str(folder), local_files_only=True)
        files = (folder / "config.json", *weight_files(folder, name, ""))
        component = shared.find(kind.__name__, files)
        if component is None:
            model = load_weights(kind, files, precision, part in checkpoint.pickled, on_host)
            component = model.eval().requires_grad_(False)
            shared.add(kind.__name__, files, component)
        return component
    except pickle.UnpicklingError as error:
        raise unsafe_weights_error(name, folder, error) from error
    except Exception as error:  # the libraries' loaders raise any type; this error names the component
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise unsafe_weights_error(name, folder, error) from error
        raise ModelError(f"{name}: {folder} can't be loaded: {type(error).__name__}: {first_line(error)}") from error


def load_weights(kind: type[Any], files: tuple[Path, ...], precision: torch.dtype, pickled: bool, on_host: bool) -> Any:
    """Load a component's weights in float32, and convert them to `precision`.

    `use_safetensors` is explicit, so that a pickled file is read only where no other exists, with `weights_only`. The
    libraries make the dtype they are given the default of the whole process during a load, hence float32. They
    construct one component at a time, whatever the thread.
    """
    name = "torch_dtype" if issubclass(kind, _libraries()[1].ModelMixin) else "dtype"
    load_options = {"local_files_only": True, "use_safetensors": not pickled}
    read_into_page_cache(files)
    with library_lock:
        model = kind.from_pretrained(str(files[0].parent), **load_options, **{name: torch.float32})
    float32_names = getattr(kind, "_keep_in_fp32_modules", None) or () if precision is torch.float16 else ()
    convert_weights(model, precision, frozenset(float32_names), files, on_host)
    return model


def unsafe_weights_error(name: str, folder: Path, error: Exception) -> ModelError:
    """Return the error for weights that would run code when opened."""
    return ModelError(
        f"{name}: the weights in {folder} contain more than tensors and were not opened ({first_line(error)}); "
        "download the model from its publisher as safetensors"
    )


def convert_component(checkpoint: Checkpoint, part: str, name: str) -> Path:
    """Write a component's tensors as one safetensors file beside its `.bin` files; returns its path.

    Raises:
        ModelError: A file contains more than tensors.
        OSError: The file can't be written.
    """
    folder = checkpoint.folder / part
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, name, ""):
        try:
            tensors |= torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises many types
            raise unsafe_weights_error(name, folder, error) from error
    stem = next((new for old, new in SAFETENSORS_STEMS.items() if any(folder.glob(f"{old}*.bin"))), "model")
    written = _write_tensors(tensors, folder / f"{stem}.safetensors")
    install.record_file(checkpoint.folder, written)
    return written


def _write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """Write a file that appears whole or not at all, and never replaces another."""
    copied = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}  # shared storage can't be saved
    with atomic_write(path, rename_to_free_name, prefix=".converting-") as hidden:
        save_file(copied, hidden, metadata={"format": "pt"})
    return path


def main() -> int:
    """Convert every component that needs it, and print the files written; exit status 1 on failure."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    try:
        checkpoint = inspect(folder, name, "install the model again")
        for part in checkpoint.pickled:
            print(convert_component(checkpoint, part, name), flush=True)
    except (TimbredError, OSError) as error:
        print(f"timbred: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
