"""Which models are in memory, which are wanted there, and who waits for that."""

from collections.abc import Iterable

from timbred.engine import wire
from timbred.errors import ShuttingDown, TimbredError, WorkerLost
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox


class Residents:
    """What the engine last said of its memory, and the `load` and `unload` requests that wait for it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.ready: wire.Ready | None = None
        self.memory_used = 0
        self.memory_total = 0
        self.sizes: dict[str, int] = {}
        self._loading: dict[str, tuple[wire.ModelSource, list[ClientId]]] = {}
        self._unloading: dict[str, list[ClientId]] = {}
        self._preload: wire.ModelSource | None = None

    def is_resident(self, name: str) -> bool:
        """Whether it is in memory, and is to stay there."""
        return name in self.sizes and name not in self._unloading

    def is_loading(self, name: str) -> bool:
        return name in self._loading

    @property
    def is_loading_any(self) -> bool:
        return bool(self._loading)

    def wanted(self) -> Iterable[wire.ModelSource]:
        """What a new engine is to load first."""
        preload = [self._preload] if self._preload else []
        named = {source.name for source in preload}
        return [*preload, *(source for source, _ in self._loading.values() if source.name not in named)]

    def preload(self, source: wire.ModelSource) -> None:
        """Load this model whenever an engine starts."""
        self._preload = source
        self._loading.setdefault(source.name, (source, []))

    def want(self, client: ClientId, source: wire.ModelSource) -> bool:
        """A client wants a model resident; says whether the engine is to be told."""
        if self.is_resident(source.name):
            self.outbox.send(client, m.Loaded(model=source.name))
            return False
        new = source.name not in self._loading
        self._loading.setdefault(source.name, (source, []))[1].append(client)
        return new

    def unwant(self, client: ClientId, name: str) -> bool:
        """A client wants a model gone; says whether the engine is to be told. Without an engine no model is loading."""
        if name not in self.sizes and (self.ready is None or not self.is_loading(name)):
            self.outbox.send(client, m.Unloaded(model=name))
            return False
        new = name not in self._unloading or self.is_loading(name)
        self._unloading.setdefault(name, []).append(client)
        return new

    def engine_up(self, ready: wire.Ready) -> None:
        self.ready = ready

    def engine_down(self, reason: str) -> None:
        """Everything in its memory is gone; those who waited for a model are told."""
        self.ready = None
        self.memory_used = 0
        self.sizes.clear()
        for name in tuple(self._unloading):
            self._unloaded(name)
        for name in tuple(self._loading):
            self.failed(name, WorkerLost(f"the engine ended while it loaded {name} ({reason}); ask once more"))
        if self._preload:
            self.preload(self._preload)

    def engine_cannot_start(self, error: WorkerLost) -> None:
        """No engine can be started: those who wait for a model are told."""
        for name in tuple(self._loading):
            self.failed(name, error)
        if self._preload:
            self.preload(self._preload)

    def engine_said(self, message: wire.Beat | wire.Loaded | wire.Unloaded) -> None:
        match message:
            case wire.Beat():
                self.memory_used, self.memory_total = message.memory_used, message.memory_total
                for model in message.resident:
                    if model.name in self.sizes:  # what came or went meanwhile has a message of its own
                        self.sizes[model.name] = model.memory
            case wire.Loaded():
                self._loaded(message.model)
            case wire.Unloaded():
                self.sizes.pop(message.name, None)
                self._unloaded(message.name)

    def _loaded(self, model: wire.ResidentModel) -> None:
        self.sizes[model.name] = model.memory
        _, clients = self._loading.pop(model.name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Loaded(model=model.name))

    def _unloaded(self, name: str) -> None:
        for client in self._unloading.pop(name, []):
            self.outbox.send(client, m.Unloaded(model=name))

    def failed(self, name: str, error: TimbredError) -> None:
        """The model can't be loaded: those who asked for it are told."""
        _, clients = self._loading.pop(name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Fail(id="load", code=error.code, message=str(error)))

    def stop(self, error: ShuttingDown) -> None:
        """The daemon is stopping: nobody is left without an answer."""
        for name in tuple(self._loading):
            self.failed(name, error)
        for clients in self._unloading.values():
            for client in clients:
                self.outbox.send(client, m.Fail(id="unload", code=error.code, message=str(error)))
        self._unloading.clear()
