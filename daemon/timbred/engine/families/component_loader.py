"""Loading of a checkpoint's components, and conversion of `.bin` weights to safetensors.

`python -m timbred.engine.families.component_loader NAME FOLDER` converts a checkpoint. `.bin` files are read with
`weights_only`, which opens nothing but tensors.
"""

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from timbred.disk import rename_to_free_name
from timbred.engine.memory.component_cache import SharedComponents, convert_weights, read_into_page_cache
from timbred.errors import ModelError, TimbredError, first_line
from timbred.ipc.socket_folder import atomic_write
from timbred.models import install
from timbred.models.checkpoint import Checkpoint, inspect, weight_files

SAFETENSORS_STEMS = {"diffusion_pytorch_model": "diffusion_pytorch_model", "pytorch_model": "model"}


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


def quiet_libraries() -> None:
    """Silence progress bars and hints of the libraries, and have them load weights in the calling thread.

    Their own loader threads would compete with the thread that generates.
    """
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    warnings.filterwarnings("ignore", module=r"torchsde\.")  # of rounded noise levels at both ends of its interval
    warnings.filterwarnings("ignore", message=r".*weight_norm` is deprecated", category=FutureWarning)
    for library in (transformers, diffusers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def component_class(checkpoint: Checkpoint, part: str, own_classes: Mapping[str, type[Any]]) -> type[Any]:
    """Return the class that a component is loaded as."""
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
            return diffusers.DDIMScheduler.load_config(str(folder))
        if part not in checkpoint.family.weighted:
            return kind.from_pretrained(str(folder), local_files_only=True)
        files = (folder / "config.json", *weight_files(folder, name, ""))
        component = shared.find(kind.__name__, files)
        if component is None:
            model = _load_weights(kind, files, precision, part in checkpoint.pickled, on_host)
            component = model.eval().requires_grad_(False)
            shared.add(kind.__name__, files, component)
        return component
    except pickle.UnpicklingError as error:
        raise unsafe_weights_error(name, folder, error) from error
    except Exception as error:  # the libraries' loaders raise any type; this error names the component
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise unsafe_weights_error(name, folder, error) from error
        raise ModelError(f"{name}: {folder} can't be loaded: {type(error).__name__}: {first_line(error)}") from error


def _load_weights(
    kind: type[Any], files: tuple[Path, ...], precision: torch.dtype, pickled: bool, on_host: bool
) -> Any:
    """Load a component's weights in float32, and convert them to `precision`.

    `use_safetensors` is explicit, so that a pickled file is read only where no other exists, with `weights_only`. The
    libraries make the dtype they are given the default of the whole process during a load, hence float32.
    """
    name = "torch_dtype" if issubclass(kind, diffusers.ModelMixin) else "dtype"
    load_options = {"local_files_only": True, "use_safetensors": not pickled}
    read_into_page_cache(files)
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
