"""The settings that can change while the daemon runs, and those that can't."""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from timbred import errors
from timbred.audio import Megabytes
from timbred.audiofile.reader import head_of, read_recipe
from timbred.config import NAMED, Config, Value, read
from timbred.errors import BadRequest
from timbred.filenames import printable
from timbred.ipc.engine_messages import NoiseSource
from timbred.models.registry import Card, Entry, Registry
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.coercion import shown
from timbred.protocol.schema import REQUESTS
from timbred.requests.completion import failure, take_event
from timbred.requests.continuous.controller import FlowControllers, InternalOutbox
from timbred.requests.deadline import DeadlineTooSoon
from timbred.requests.deadline_requests import DeadlineHandlers
from timbred.requests.job import Job, Key, key_of
from timbred.requests.playback import PlaybackHandlers
from timbred.requests.postprocess import FinishedTake
from timbred.requests.resolve import PLAYED, Parameters, Session, repaints, resolve
from timbred.requests.scheduler import JobScheduler
from timbred.requests.scsynth_buffers import ScsynthBuffers
from timbred.storage.library import Library
from timbred.storage.recipe import overlaid, parameters_of
from timbred.storage.takes_folder import AllowedFolders, TakesFolder
from timbred.task_supervision import Supervisor, hold_until_done


class LiveSettings:
    """The values in force."""

    def __init__(self, config: Config, check: Callable[[str, Value], None]) -> None:
        """`check` hears of a change before it is made, and may refuse it by an error."""
        # values are told to clients, as UTF-8
        self._values: dict[str, Value] = {
            name: printable(value) if isinstance(value, str) else value for name, value in config.values.items()
        }
        self._said = set(config.said)
        self._check = check
        self.on_change: Callable[[str, Value], None] = lambda _name, _value: None
        """Hears of each change, and of each value that something else decides and that is new."""

    def __getitem__(self, name: str) -> Value:
        """Raises:
        BadRequest: there is no such setting; lists those there are.
        """
        if name not in self._values:
            raise BadRequest(f"there is no setting {name!r}; there are {', '.join(self._values)}")
        return self._values[name]

    def change(self, name: str, raw: object) -> None:
        """Set a value from outside.

        Raises:
            BadRequest: there is no such setting, it can't change now, or the value isn't allowed.
        """
        _ = self[name]
        if not NAMED[name].live:
            live = ", ".join(setting.name for setting in NAMED.values() if setting.live)
            raise BadRequest(f"setting {name}: set it at the start, with --set {name}={raw}; while running: {live}")
        value = read(NAMED[name], raw)
        self._check(name, value)
        self._values[name] = value
        self._said.add(name)
        self.on_change(name, value)

    def follow_until_said(self, name: str, value: Value) -> None:
        """A value that something else decides as long as the user hasn't, if it is one of those allowed."""
        setting = NAMED[name]
        allowed = not isinstance(value, int | float) or (setting.low or 0) <= value <= (setting.high or value)
        if name not in self._said and allowed:
            self.follow(name, value)

    def follow(self, name: str, value: Value) -> None:
        """A value that something else decides (the system a free port, a Link session its tempo)."""
        if self._values[name] != value:
            self._values[name] = value
            self.on_change(name, value)

    @property
    def session(self) -> Session:
        """What the session lends to requests."""
        return Session(int(self["audio.rate"]), float(self["tempo"]), float(self["beats_per_bar"]))


log = logging.getLogger(__name__)

MOST_READING = 128
"""Requests of one client for which files are read at one time; one more is answered `busy`."""

LISTINGS_AT_ONCE = 2
"""Threads that look through the takes at one time: more would delay all other requests."""

LONGEST_DESCENT = 32
"""Takes that may have handed on one starting noise."""

NEVER_BUSY = (m.Cancel, m.Status, m.Stop, m.Tempo, m.Setting)
"""Requests that are taken in however many others of the client are under way."""

_TYPE_OF = {entry.kind: entry.name for entry in REQUESTS}


class RequestHandlers:
    """Implements `protocol.exchange.Inbox`. Runs on the event loop; what reads disks runs in threads."""

    def __init__(
        self,
        outbox: InternalOutbox,
        registry: Registry,
        dispatcher: JobScheduler,
        library: Library,
        folder: TakesFolder,
        allowed: AllowedFolders,
        settings: LiveSettings,
        player: PlayerClient,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.supervisor = supervisor or Supervisor()
        self.outbox = outbox
        self.registry = registry
        self.dispatcher = dispatcher
        self.library = library
        self.folder = folder
        self.allowed = allowed
        self.settings = settings
        self.player = player
        self.playing = PlaybackHandlers(outbox, player, library, allowed, self._could_not_play, self.supervisor)
        self.buffers = ScsynthBuffers(outbox, self.supervisor)
        dispatcher.delivering.on_take = self._taken
        dispatcher.pieces.on_piece = self.playing.early.piece
        dispatcher.pieces.on_broken = self.playing.early.broken
        self.flows = FlowControllers(outbox, player, dispatcher, lambda: settings.session)
        self.playing.stop_flows = self.flows.stop
        self.playing.flowing = self.flows.has
        self.in_time = DeadlineHandlers(dispatcher, player, lambda: settings.session)
        self._being_timed: dict[Key, m.Generate | m.Vary] = {}
        """Requests with a deadline that wait until their model has been timed; a cancelled one is no longer here."""
        player.on_tempo = lambda bpm: settings.follow("tempo", bpm)
        player.on_rate = lambda rate: settings.follow_until_said("audio.rate", rate)
        self.began = time.monotonic()
        self._reading: set[asyncio.Task[Any]] = set()
        self._reading_of: Counter[ClientId] = Counter()
        self._listings = asyncio.Semaphore(LISTINGS_AT_ONCE)
        self._listing_models: asyncio.Task[list[m.Model]] | None = None
        self._answers: dict[type[m.Request], Callable[[ClientId, Any], Coroutine[Any, Any, None] | None]] = {
            m.Generate: self._generate,
            m.Vary: self._vary,
            m.Cancel: self._cancel,
            m.Status: self._status,
            m.Models: self._models,
            m.Load: self._load,
            m.Unload: self._unload,
            m.Takes: self._takes,
            m.Play: self.playing.play,
            m.Stop: self.playing.stop,
            m.Set: self.playing.change,
            m.Flow: self._flow,
            m.Tempo: self._tempo,
            m.Setting: self._setting,
        }

    def receive(self, client: ClientId, request: m.Request) -> None:
        """Take in a request; see `Inbox`."""
        try:
            if self._reading_of.get(client, 0) >= MOST_READING and not isinstance(request, NEVER_BUSY):
                busy = f"files are being read for {MOST_READING} requests of yours already; send this one again later"
                raise errors.Busy(busy, 1.0)
            reading = self._answers[type(request)](client, request)
        except Exception as error:  # noqa: BLE001  one answer, whatever went wrong
            self._refuse(client, request, error)
            return
        if reading is None:
            return
        self._reading_of[client] += 1
        task = self.supervisor.run(self._guarded(client, request, reading), _TYPE_OF[type(request)])
        hold_until_done(task, self._reading)
        task.add_done_callback(lambda _: self._has_read(client))

    def _has_read(self, client: ClientId) -> None:
        self._reading_of[client] -= 1
        if not self._reading_of[client]:
            del self._reading_of[client]

    async def stop(self) -> None:
        """Wait until what was being read has been answered."""
        if self._reading:
            await asyncio.wait(self._reading)
        await self.buffers.stop()

    async def _guarded(self, client: ClientId, request: m.Request, reading: Coroutine[Any, Any, None]) -> None:
        try:
            await reading
        except Exception as error:  # noqa: BLE001  one answer, whatever went wrong
            self._refuse(client, request, error)

    def _refuse(self, client: ClientId, request: m.Request, error: Exception) -> None:
        known = errors.from_foreign(error)
        if isinstance(known, errors.Internal):
            log.error("%s: %s", _TYPE_OF[type(request)], known, exc_info=error)
        self.outbox.send(client, failure(_named(request), known))

    def _known(self, client: ClientId, request: m.Generate | m.Vary) -> bool:
        """Tell whether this request came before. If so it is answered with where it stands.

        Raises:
            BadRequest: another request came with this id; names what differs.
        """
        timed = self._being_timed.get(key_of(client, request.id))
        if timed is not None:
            check_same(timed, request)
            return True
        job = self.dispatcher.remembered.get(client, request.id)
        if job is None:
            return False
        if job.asked is not None:
            check_same(job.asked, request)
        self.dispatcher.repeat(job)
        return True

    def _generate(self, client: ClientId, request: m.Generate) -> Coroutine[Any, Any, None] | None:
        return None if self._known(client, request) else self._take_in(client, request, request)

    def _take_in(
        self, client: ClientId, request: m.Generate, asked: m.Generate | m.Vary
    ) -> Coroutine[Any, Any, None] | None:
        """Take in a request that isn't known. `asked` is what the client sent."""
        entry = self.registry[request.model or str(self.settings["models.default"])]
        noise = self._noise_of(request.noise, entry.card.name) if request.noise else None
        init = self._file_of(request.init) if request.init else None
        head = head_of(init) if init else None
        session, seed = self.settings.session, secrets.randbelow(2**31)
        if request.folder:
            self.folder.check_inside(request.folder)
        if request.to in PLAYED:
            self.playing.check(request)
        if request.scsynth is not None:
            self.buffers.check(client)

        def resolved(asked: m.Generate) -> Parameters:
            return resolve(asked, entry.card, session, seed, noise, head.seconds if head else None, head)

        parameters = resolved(request)
        if not self.dispatcher.residents.is_resident(entry.card.name):
            entry.checkpoint()
        if request.by is not None:
            return self._in_time(client, request, asked, entry.card, parameters, resolved, init)
        self.dispatcher.submit(client, request.id, parameters, init, asked=asked)
        return None

    def _in_time(
        self, client: ClientId, request: m.Generate, asked: m.Generate | m.Vary, card: Card, parameters: Parameters,
        resolved: Callable[[m.Generate], Parameters], init: Path | None,
    ) -> Coroutine[Any, Any, None] | None:  # fmt: skip
        """A request with a deadline: decided at once, or as soon as its model has been timed."""
        came = time.monotonic()
        self.in_time.check(request)

        def decide() -> None:
            planned, wanted = self.in_time.planned(request, parameters, card, came)
            self.dispatcher.submit(client, request.id, resolved(planned), init, wanted, asked)

        if self.in_time.is_timed(parameters):
            try:
                decide()
                return None
            except DeadlineTooSoon as error:
                if not self.in_time.should_time_again(parameters, error):
                    raise
        key = key_of(client, request.id)
        self._being_timed[key] = asked
        return self._timed_first(key, parameters, decide)

    async def _timed_first(self, key: Key, parameters: Parameters, decide: Callable[[], None]) -> None:
        try:
            await self.in_time.time(parameters)
            if key in self._being_timed:
                decide()
        except Exception:
            if key in self._being_timed:  # else it was cancelled, and that was its end
                raise
        finally:
            self._being_timed.pop(key, None)

    def _cancel_timing(self, client: ClientId, keys: Sequence[Key]) -> None:
        """End requests that wait until their model has been timed."""
        for key in keys:
            self.outbox.send(client, m.Cancelled(id=self._being_timed.pop(key).id))

    def _vary(self, client: ClientId, request: m.Vary) -> Coroutine[Any, Any, None] | None:
        """Reads the recipe at once, not in a thread: what this client sends next must not overtake it."""
        if self._known(client, request):
            return None
        return self._take_in(client, changed(self._recipe_of(request.take), request), request)

    def _noise_of(self, take: str, model: str) -> NoiseSource:
        """The starting noise of a stored take, which may itself have had an earlier one's."""
        for _ in range(LONGEST_DESCENT):
            recipe = self._recipe_of(take)
            if recipe["model"] != model:
                raise errors.BadRequest(f"noise: {take} was made by {recipe['model']}; its noise fits no other model")
            if "noise" not in recipe:
                card = self.registry[model].card
                request = m.Generate(id="noise", **recipe)
                found = resolve(request, card, self.settings.session, 0)
                return NoiseSource(seed=found.seed, seconds=found.rendered_seconds, loop=found.loop)
            take = recipe["noise"]
        raise errors.BadRequest(f"noise: {take} goes back over more than {LONGEST_DESCENT} takes; name an earlier one")

    def _file_of(self, take: str) -> Path:
        """The file that a take id or a path stands for.

        Raises:
            BadRequest: there is no such take, or it was never a file.
            ForbiddenPath, BadAudio: the path may not be read, or there is no such file.
        """
        stored = self.library.get(take)
        if stored is None:
            self._refuse_unknown_take(take)
            return self.allowed.resolve(take)
        if stored.path is None or stored.missing:
            raise errors.BadAudio(f"init: the file of {take} is gone; make it again with vary")
        return stored.path

    def _recipe_of(self, take: str) -> dict[str, Any]:
        """The parameters of a stored take or of a file."""
        stored = self.library.get(take)
        if stored is not None:
            return parameters_of(stored.recipe)
        self._refuse_unknown_take(take)
        return parameters_of(read_recipe(self.allowed.resolve(take)))

    @staticmethod
    def _refuse_unknown_take(take: str) -> None:
        if not any(mark in take for mark in "/\\."):
            raise errors.BadRequest(f"take: no take has the id {take!r}, and it isn't a path; `takes` lists them")

    def _cancel(self, client: ClientId, request: m.Cancel) -> None:
        if request.id == "*":
            jobs = list(self.dispatcher.remembered.live(client))
            timed = [key for key in self._being_timed if key[0] == client]
            for job in jobs:
                self.dispatcher.cancel(job)
            self._cancel_timing(client, timed)
            if not jobs and not timed:
                self.outbox.send(client, m.Acknowledged(id="cancel"))
            return
        if (key := key_of(client, request.id)) in self._being_timed:
            self._cancel_timing(client, [key])
            return
        job = self.dispatcher.remembered.get(client, request.id)
        if job is None or not job.live:
            state = "has ended already" if job else "isn't known"
            raise errors.BadRequest(f"id: the request {request.id!r} {state}; there is nothing to cancel")
        self.dispatcher.cancel(job)

    def _status(self, client: ClientId, request: m.Status) -> None:
        residents = self.dispatcher.residents
        running = sum(1 for _ in self.dispatcher.remembered.live()) - len(self.dispatcher.queue)
        self.outbox.send(
            client,
            m.StatusReply(
                jobs_queued=len(self.dispatcher.queue),
                jobs_running=running,
                models_resident=len(residents.sizes),
                device_memory_used=megabytes(residents.memory_used),
                device_memory_total=megabytes(residents.memory_total),
                voices_playing=self.player.voices_playing,
                sample_rate=self.player.rate or self.settings.session.rate,
                underruns=self.player.underruns,
                uptime_s=time.monotonic() - self.began,
                late=self.player.late,
                lead=self.player.lead * 1000,
                engine=self.dispatcher.orders.state,
                engine_trouble=self.dispatcher.orders.trouble,
                player=self.player.process.state,
                player_trouble=self.player.process.trouble,
                faults="; ".join(map(str, self.supervisor.faults)),
            ),
        )

    async def _models(self, client: ClientId, request: m.Models) -> None:
        listing = self._listing_models
        if listing is None or listing.done():  # many who ask at one time get one answer
            listing = self._listing_models = asyncio.create_task(self._described())
        self.outbox.send_list(client, "models", await asyncio.shield(listing), None)

    async def _described(self) -> list[m.Model]:
        entries = list(self.registry.entries.values())
        return await asyncio.to_thread(lambda: [self.describe(entry) for entry in entries])

    def describe(self, entry: Entry) -> m.Model:
        """A model as `models` lists it; reads its folder."""
        residents, name = self.dispatcher.residents, entry.card.name
        size = residents.sizes.get(name, 0)
        if name in residents.sizes:
            state = "resident"
        elif residents.is_loading(name):
            state = "loading"
        else:
            try:
                size = entry.checkpoint().weight_bytes
                state = "available"
            except errors.TimbredError:
                state = "missing"
        return m.Model(
            name=name,
            state=state,
            native_rate=entry.card.native_rate,
            channels=entry.card.channels,
            max_seconds=entry.card.max_seconds,
            licence=entry.card.licence,
            memory_mb=megabytes(size),
            title=entry.card.title,
            default_seconds=entry.card.default_seconds,
            steps=entry.card.steps,
            guidance=entry.card.guidance,
            scheduler=entry.card.scheduler,
            ranks=entry.card.ranks,
            knows=", ".join((*entry.card.kinds, *entry.card.words)),
        )

    def _load(self, client: ClientId, request: m.Load) -> None:
        self.dispatcher.loads.load(client, request.model)

    def _unload(self, client: ClientId, request: m.Unload) -> None:
        self.dispatcher.loads.unload(client, request.model)

    async def _takes(self, client: ClientId, request: m.Takes) -> None:
        async with self._listings:
            found = await asyncio.to_thread(self.library.search, request.search or "", request.limit, request.like)
        events = [take_event("takes", take, index) for index, take in enumerate(found)]
        end = m.Done(id="takes", takes=len(events), path=events[0].path if events else "")
        self.outbox.send_list(client, "takes", events, end)

    def _setting(self, client: ClientId, request: m.Setting) -> None:
        if request.value is not None:
            self.settings.change(request.name, request.value)
        self.outbox.send(client, m.SettingNow(name=request.name, value=self.settings[request.name]))

    def _tempo(self, client: ClientId, request: m.Tempo) -> None:
        self.settings.change("tempo", request.bpm)
        self.outbox.send(client, m.Acknowledged(id="tempo"))

    def _flow(self, client: ClientId, request: m.Flow) -> Coroutine[Any, Any, None] | None:
        entry = self.registry[request.model or str(self.settings["models.default"])]
        init = self._file_of(request.init) if request.init else None
        if not self.dispatcher.residents.is_resident(entry.card.name):
            entry.checkpoint()
        head = head_of(init) if init else None
        if head is not None and head.channels > 2 and repaints(request):
            raise errors.BadRequest(f"init: it has {head.channels} channels and stays in part; voices play 1 or 2")
        return self.flows.flow(client, request, entry.card, init, head.seconds if head else None)

    def _taken(self, job: Job, take: FinishedTake) -> None:
        self.playing.finished(job, take)
        self.buffers.finished(job, take)

    def _could_not_play(self, client: ClientId, error: Exception) -> None:
        known = errors.from_foreign(error)
        if isinstance(known, errors.Internal):
            log.error("play: %s", known, exc_info=error)
        self.outbox.send(client, failure("play", known))


def _named(request: m.Request) -> m.Id:
    """What stands in the id's place of an answer to this request."""
    match request:
        case m.Generate(id=identity) | m.Vary(id=identity):
            return identity
        case m.Setting(name=name):
            return f"settings/{name}"
        case _:
            return _TYPE_OF[type(request)]


def check_same(before: m.Generate | m.Vary, request: m.Generate | m.Vary) -> None:
    """See that a request is the one that came with its id before; only where answers go may differ.

    Raises:
        BadRequest: naming what differs, with both values.
    """
    if type(before) is not type(request):
        kinds = f"a {_TYPE_OF[type(before)]} before and is a {_TYPE_OF[type(request)]} now"
        raise errors.BadRequest(f"id: {shown(request.id)} was {kinds}; take another id for another request")
    pairs = {key: (getattr(before, key), getattr(request, key)) for key in request.__struct_fields__}
    differing = [
        f"{key} was {_told(one)} and is {_told(other)}"
        for key, (one, other) in pairs.items()
        if key not in ("id", "port") and one != other
    ]
    if differing:
        raise errors.BadRequest(
            f"id: {shown(request.id)} is the name of another request: {', '.join(differing)}; take another id, or send "
            "the same request to hear where it stands"
        )


def _told(value: object) -> str:
    return "not given" if value is None else shown(value)


def changed(recipe: dict[str, Any], request: m.Vary) -> m.Generate:
    """A stored take's parameters with what the request names changed."""
    named = {key: getattr(request, key) for key in m.Generate.__struct_fields__ if getattr(request, key) is not None}
    return m.Generate(**overlaid(recipe, named))


def megabytes(size: int) -> Megabytes:
    """Bytes as megabytes."""
    return Megabytes(size / 1e6)
