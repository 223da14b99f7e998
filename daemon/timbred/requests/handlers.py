"""Handlers of all requests, and the settings that can change while the daemon runs."""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from timbred import errors
from timbred.audiofile.files import read_header
from timbred.config import NAMED, Config, Value, read
from timbred.dsp.pipeline import StreamPiece
from timbred.errors import BadRequest
from timbred.filenames import printable
from timbred.models.clap import ADD_CLAP
from timbred.models.registry import Card, Registry
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.coercion import shown
from timbred.protocol.schema import REQUESTS
from timbred.requests.completion import SoundListener, failure, take_event
from timbred.requests.continuous.controller import FlowControllers
from timbred.requests.continuous.plan import FlowPlan
from timbred.requests.deadline import DeadlineTooSoon
from timbred.requests.deadline_requests import DeadlineHandlers
from timbred.requests.job import Job, Key, key_of
from timbred.requests.key_checks import repaints
from timbred.requests.loras import LoraHandlers
from timbred.requests.model_residency import ModelListHandlers, megabytes
from timbred.requests.named_files import NamedFiles, find_embeddings
from timbred.requests.playback import PlaybackHandlers
from timbred.requests.postprocess import FinishedTake
from timbred.requests.resolve import PLAYED, Parameters, Session, resolve
from timbred.requests.scheduler import JobScheduler
from timbred.requests.scsynth_buffers import ScsynthBuffers
from timbred.storage.library import Library
from timbred.storage.paths import AllowedFolders
from timbred.storage.recipe import overlay, without_sampling
from timbred.storage.takes_folder import TakesFolder
from timbred.task_supervision import Supervisor, keep_until_done

log = logging.getLogger(__name__)


HIDDEN_VALUE = "(hidden)"
"""Value of a secret setting for clients, if it is set."""


class LiveSettings:
    """The values of all settings, some of which change while the daemon runs.

    Args:
        config: The values at the start.
        check: Called before a change; raises an error to refuse it.
        apply: Applies a change that was checked.
        on_change: Called after each change, also after one that isn't a client's.
    """

    def __init__(
        self,
        config: Config,
        check: Callable[[str, Value], None],
        apply: Callable[[str, Value], None],
        on_change: Callable[[str, Value], None],
    ) -> None:
        # values are sent to clients, as UTF-8
        self._values: dict[str, Value] = {
            name: printable(value) if isinstance(value, str) else value for name, value in config.values.items()
        }
        for name in self._values:
            if NAMED[name].is_secret and self._values[name]:
                self._values[name] = HIDDEN_VALUE
        self._set_by_user = set(config.set_by_user)
        self._check = check
        self._apply = apply
        self._on_change = on_change

    def __getitem__(self, name: str) -> Value:
        """Return a value.

        Raises:
            BadRequest: No setting has this name; lists all names.
        """
        if name not in self._values:
            raise BadRequest(f"there is no setting {name!r}; there are {', '.join(self._values)}")
        return self._values[name]

    def change(self, name: str, raw: object) -> None:
        """Set a value on behalf of a client.

        Raises:
            BadRequest: No setting has this name, it can't change now, or the value isn't allowed.
        """
        _ = self[name]
        if not NAMED[name].live:
            live = ", ".join(setting.name for setting in NAMED.values() if setting.live)
            shown = "VALUE" if NAMED[name].is_secret else raw
            raise BadRequest(f"setting {name}: set it at the start, with --set {name}={shown}; while running: {live}")
        value = read(NAMED[name], raw)
        self._check(name, value)
        self._apply(name, value)
        self._values[name] = value
        self._set_by_user.add(name)
        self._on_change(name, value)

    def follow_unless_set(self, name: str, value: Value) -> None:
        """Set an allowed value that the system determines, unless the user has set one."""
        allowed = not isinstance(value, int | float) or NAMED[name].in_range(value)
        if name not in self._set_by_user and allowed:
            self.follow(name, value)

    def follow(self, name: str, value: Value) -> None:
        """Set a value that the system determines: a free port, the tempo of a Link session."""
        if self._values[name] != value:
            self._values[name] = value
            self._on_change(name, value)

    @property
    def session(self) -> Session:
        """Defaults for requests: sample rate, tempo and bars."""
        return Session(int(self["audio.rate"]), float(self["tempo"]), float(self["beats_per_bar"]))


MAX_PENDING_REQUESTS = 128
"""Requests of one client that may wait for a file or a model at one time; a further one is answered `busy`."""

MAX_CONCURRENT_SEARCHES = 2
"""Threads that search the library at one time: more would delay all other requests."""

NEVER_BUSY = (m.Cancel, m.Status, m.Stop, m.Tempo, m.Setting)
"""Requests that are handled regardless of `MAX_PENDING_REQUESTS`."""

_TYPE_OF = {entry.kind: entry.name for entry in REQUESTS}


class RequestHandlers:
    """Handles all requests. Implements `timbred.protocol.boundary.Inbox`.

    Runs on the event loop; disks are read in threads, except for the head of a file or a recipe.

    Args:
        outbox: Where events are sent.
        registry: The models.
        scheduler: The scheduler of jobs.
        library: The library of takes.
        folder: The takes folder.
        allowed: Folders that files may be read from.
        settings: The settings.
        player: The player.
        playback: Handlers of playback.
        buffers: Buffers of SuperCollider servers.
        flows: Continuous playback.
        loras: LoRAs.
        supervisor: Runs the tasks of requests.
        count_denied: Returns the number of refused attempts of other machines.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        scheduler: JobScheduler,
        library: Library,
        folder: TakesFolder,
        allowed: AllowedFolders,
        settings: LiveSettings,
        player: PlayerClient,
        playback: PlaybackHandlers,
        buffers: ScsynthBuffers,
        flows: FlowControllers,
        loras: LoraHandlers,
        supervisor: Supervisor,
        count_denied: Callable[[], int],
    ) -> None:
        self.supervisor = supervisor
        self.count_denied = count_denied
        self.outbox = outbox
        self.registry = registry
        self.scheduler = scheduler
        self.library = library
        self.folder = folder
        self.allowed = allowed
        self.files = NamedFiles(library, allowed, lambda: settings.session)
        self.settings = settings
        self.player = player
        self.playback = playback
        self.buffers = buffers
        self.flows = flows
        self.loras = loras
        self.listing = ModelListHandlers(
            outbox, registry, scheduler.engines, scheduler.loads, scheduler.can_rank, self._default_model
        )
        self.deadlines = DeadlineHandlers(scheduler, player, lambda: settings.session)
        self._being_timed: dict[Key, m.Generate | m.Vary] = {}
        """Requests with a deadline that wait until their model has been timed; cancelled ones are removed."""
        self.began = time.monotonic()
        self._pending: set[asyncio.Task[Any]] = set()
        self._pending_of: Counter[ClientId] = Counter()
        self._searches = asyncio.Semaphore(MAX_CONCURRENT_SEARCHES)
        self._handlers: dict[type[m.Request], Callable[[ClientId, Any], Coroutine[Any, Any, None] | None]] = {
            m.Generate: self._generate,
            m.Vary: self._vary,
            m.Cancel: self._cancel,
            m.Status: self._status,
            m.Models: self.listing.models,
            m.KnownWords: self.listing.words,
            m.Loras: self.loras.list,
            m.Engines: self._engines,
            m.Load: self._load,
            m.Unload: self._unload,
            m.Takes: self._takes,
            m.Play: self.playback.play,
            m.Stop: self._stop,
            m.Set: self.playback.change,
            m.Flow: self._flow,
            m.Tempo: self._tempo,
            m.Setting: self._setting,
        }

    def _default_model(self) -> str:
        return str(self.settings["models.default"])

    def receive(self, client: ClientId, request: m.Request) -> None:
        """Handle a request; see `Inbox`."""
        try:
            if self._pending_of.get(client, 0) >= MAX_PENDING_REQUESTS and not isinstance(request, NEVER_BUSY):
                raise errors.Busy(
                    f"{MAX_PENDING_REQUESTS} of your requests are still reading files; send this one again later",
                    1.0,
                )
            work = self._handlers[type(request)](client, request)
        except Exception as error:  # noqa: BLE001  any failure is answered
            self._refuse(client, request, error)
            return
        if work is None:
            return
        self._pending_of[client] += 1
        task = self.supervisor.run(self._guarded(client, request, work), _TYPE_OF[type(request)])
        keep_until_done(task, self._pending)
        task.add_done_callback(lambda _: self._task_ended(client))

    def _task_ended(self, client: ClientId) -> None:
        self._pending_of[client] -= 1
        if not self._pending_of[client]:
            del self._pending_of[client]

    async def stop(self) -> None:
        """Wait until all pending requests have been answered."""
        if self._pending:
            await asyncio.wait(self._pending)
        await self.buffers.stop()

    async def _guarded(self, client: ClientId, request: m.Request, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  any failure is answered
            self._refuse(client, request, error)

    def _refuse(self, client: ClientId, request: m.Request, error: Exception) -> None:
        known = errors.from_foreign(error)
        if isinstance(known, errors.Internal):
            log.error("%s: %s", _TYPE_OF[type(request)], known, exc_info=error)
        self.outbox.send(client, failure(_answer_id(request), known))

    def _known(self, client: ClientId, request: m.Generate | m.Vary) -> bool:
        """Return whether this request came before; if so, send its state again.

        Raises:
            BadRequest: Another request came with this id; names the differences.
        """
        waiting = self._being_timed.get(key_of(client, request.id))
        if waiting is not None:
            check_same(waiting, request)
            return True
        job = self.scheduler.jobs.get(client, request.id)
        if job is None:
            return False
        if job.request is not None:
            check_same(job.request, request)
        self.scheduler.repeat(job)
        return True

    def _generate(self, client: ClientId, request: m.Generate) -> Coroutine[Any, Any, None] | None:
        return None if self._known(client, request) else self._submit(client, request, request)

    def _submit(
        self, client: ClientId, request: m.Generate, original: m.Generate | m.Vary
    ) -> Coroutine[Any, Any, None] | None:
        """Validate a new request and create its job. `original` is the request that the client sent."""
        entry = self.registry[request.model or self._default_model()]
        noise = self.files.noise_of(request.noise, entry.card) if request.noise else None
        files = self.files.find(request)
        head = read_header(files.init) if files.init else None
        session, seed = self.settings.session, secrets.randbelow(2**31)
        if request.folder:
            self.folder.check_inside(request.folder)
        if request.to in PLAYED:
            self.playback.check(request)
        if request.scsynth is not None:
            self.buffers.check(client)

        resolve_request = partial(
            resolve,
            card=entry.card,
            session=session,
            random_seed=seed,
            noise_source=noise,
            init_seconds=head.seconds if head else None,
            init_head=head,
            loras=self.loras.resolve(request.lora, entry) if request.lora else (),
        )
        if request.rank and not self.scheduler.can_rank(entry.card):
            raise errors.BadRequest(
                f"rank: there is no CLAP to compare sounds of {entry.card.name} with words; leave it out, or {ADD_CLAP}"
            )
        parameters = resolve_request(request)
        if not self.scheduler.engines.is_resident(entry.card.name):
            entry.checkpoint()
        files = replace(files, embeddings=find_embeddings(request, parameters, entry, self.allowed))
        submit = partial(self.scheduler.submit, client, request.id, files=files, request=original)
        if request.by is not None:
            return self._submit_with_deadline(
                client, request, original, entry.card, parameters, resolve_request, submit
            )
        submit(parameters)
        return None

    def _submit_with_deadline(
        self, client: ClientId, request: m.Generate, original: m.Generate | m.Vary, card: Card, parameters: Parameters,
        resolve_request: Callable[[m.Generate], Parameters], submit_job: Callable[..., None],
    ) -> Coroutine[Any, Any, None] | None:  # fmt: skip
        """Create the job of a request with a deadline, immediately or as soon as its model has been timed."""
        received_at = self.scheduler.clock()
        self.deadlines.check(request)

        def submit() -> None:
            planned, deadline = self.deadlines.plan(request, parameters, card, received_at)
            submit_job(resolve_request(planned), deadline=deadline)

        if self.deadlines.is_timed(parameters):
            try:
                submit()
                return None
            except DeadlineTooSoon as error:
                if not self.deadlines.should_time_again(parameters, error):
                    raise
        key = key_of(client, request.id)
        self._being_timed[key] = original
        return self._time_then(key, parameters, submit)

    async def _time_then(self, key: Key, parameters: Parameters, submit: Callable[[], None]) -> None:
        """Time a model, then submit the request unless it was cancelled."""
        try:
            await self.deadlines.time(parameters)
            if key in self._being_timed:
                submit()
        except Exception:
            if key in self._being_timed:  # else `cancelled` was its terminal event
                raise
        finally:
            self._being_timed.pop(key, None)

    def _cancel_timing(self, client: ClientId, keys: Sequence[Key]) -> None:
        """Cancel requests that wait until their model has been timed."""
        for key in keys:
            self.scheduler.terminal_events.cancelled_before_queued(client, self._being_timed.pop(key).id)

    def _vary(self, client: ClientId, request: m.Vary) -> Coroutine[Any, Any, None] | None:
        """Handle `vary`. The recipe is read here, not in a thread: the client's next request must not overtake it."""
        if self._known(client, request):
            return None
        recipe = self.files.recipe_of(request.take)
        model = recipe["model"]
        card = self.registry[model].card if model in self.registry.entries and request.model in (None, model) else None
        has_changed = (
            card is not None and bool(card.version) and card.version != self.files.model_version_of(request.take)
        )
        varied = merge_recipe(without_sampling(recipe) if has_changed else recipe, request)
        submitted = self._submit(client, varied, request)
        if has_changed:
            self.scheduler.warn(client, changed_model_warning(request.id, model))
        return submitted

    def _cancel(self, client: ClientId, request: m.Cancel) -> None:
        if request.id == "*":
            jobs = list(self.scheduler.jobs.live(client))
            waiting = [key for key in self._being_timed if key[0] == client]
            for job in jobs:
                self.scheduler.cancel(job)
            self._cancel_timing(client, waiting)
            if not jobs and not waiting:
                self.outbox.send(client, m.Acknowledged(id="cancel"))
            return
        if (key := key_of(client, request.id)) in self._being_timed:
            self._cancel_timing(client, [key])
            return
        job = self.scheduler.jobs.get(client, request.id)
        if job is None or not job.live:
            state = "has ended already" if job else "isn't known"
            raise errors.BadRequest(f"id: the request {request.id!r} {state}; there is nothing to cancel")
        self.scheduler.cancel(job)

    def _status(self, client: ClientId, request: m.Status) -> None:
        engines = self.scheduler.engines
        used, total = engines.memory
        queued = len(self.scheduler.jobs.waiting())
        running = sum(1 for _ in self.scheduler.jobs.live()) - queued
        self.outbox.send(
            client,
            m.StatusReply(
                jobs_queued=queued,
                jobs_running=running,
                models_resident=len(engines.residents()),
                device_memory_used=megabytes(used),
                device_memory_total=megabytes(total),
                voices_playing=self.player.voices_playing,
                sample_rate=self.player.rate or self.settings.session.rate,
                underruns=self.player.underruns,
                uptime_s=time.monotonic() - self.began,
                late=self.player.late,
                lead=self.player.lead * 1000,
                engine=engines.state,
                engine_trouble=engines.trouble,
                player=self.player.process.state,
                player_trouble=self.player.process.trouble,
                faults="; ".join(map(str, self.supervisor.faults)),
                denied=self.count_denied(),
            ),
        )

    def _engines(self, client: ClientId, request: m.Engines) -> None:
        self.outbox.send_list(client, "engines", self.scheduler.engines.describe(), None)

    def _load(self, client: ClientId, request: m.Load) -> None:
        self.scheduler.loads.load(client, request.model)

    def _unload(self, client: ClientId, request: m.Unload) -> None:
        self.scheduler.loads.unload(client, request.model)

    async def _takes(self, client: ClientId, request: m.Takes) -> None:
        async with self._searches:
            takes = await asyncio.to_thread(self.library.search, request.search or "", request.limit, request.like)
        events = [take_event("takes", take, index) for index, take in enumerate(takes)]
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
        entry = self.registry[request.model or self._default_model()]
        files = self.files.find(request)
        if not self.scheduler.engines.is_resident(entry.card.name):
            entry.checkpoint()
        head = read_header(files.init) if files.init else None
        if head is not None and head.channels > 2 and repaints(request):
            raise errors.BadRequest(f"init: it has {head.channels} channels and stays in part; voices play 1 or 2")
        loras = self.loras.resolve(request.lora, entry)
        seconds = head.seconds if head else None
        plan = FlowPlan(request, entry.card, 0, 0.0, files=files, init_seconds=seconds, loras=loras)
        files = plan.check_embeddings(entry, self.allowed, self.settings.session)
        return self.flows.flow(client, request, entry.card, files, seconds, loras)

    def _stop(self, client: ClientId, request: m.Stop) -> None:
        """Stop voices; only an immediate stop ends continuous playback, which isn't scheduled."""
        voice = 0 if request.voice == "*" else request.voice
        silent_flows = self.flows.stop(voice) if request.at in (None, "now") else []
        self.playback.stop(client, request, silent_flows)


class SoundOutputs(SoundListener):
    """Passes pieces to streaming playback, and takes to playback and SuperCollider servers."""

    def __init__(self, playback: PlaybackHandlers, buffers: ScsynthBuffers) -> None:
        self._playback = playback
        self._buffers = buffers

    def piece(self, job: Job, piece: StreamPiece) -> None:
        """See `SoundListener`."""
        self._playback.streaming.piece(job, piece)

    def pieces_discarded(self, job: Job) -> None:
        """See `SoundListener`."""
        self._playback.streaming.pieces_discarded(job)

    def take(self, job: Job, take: FinishedTake) -> None:
        """See `SoundListener`."""
        self._playback.finished(job, take)
        self._buffers.finished(job, take)


def _answer_id(request: m.Request) -> m.Id:
    """Return the id of a failure of this request; requests without an id have their type there."""
    match request:
        case m.Generate(id=identity) | m.Vary(id=identity):
            return identity
        case m.Setting(name=name):
            return f"settings/{name}"
        case _:
            return _TYPE_OF[type(request)]


def check_same(before: m.Generate | m.Vary, request: m.Generate | m.Vary) -> None:
    """Check that a request equals the one that came with its id before; only the reply port may differ.

    Raises:
        BadRequest: They differ; names each difference with both values.
    """
    if type(before) is not type(request):
        kinds = f"a {_TYPE_OF[type(before)]} before and is a {_TYPE_OF[type(request)]} now"
        raise errors.BadRequest(f"id: {shown(request.id)} was {kinds}; use another id for another request")
    pairs = {key: (getattr(before, key), getattr(request, key)) for key in request.__struct_fields__}
    differing = [
        f"{key} was {_value_text(old)} and is {_value_text(new)}"
        for key, (old, new) in pairs.items()
        if key not in ("id", "port") and old != new
    ]
    if differing:
        raise errors.BadRequest(
            f"id: {shown(request.id)} is the name of another request: {', '.join(differing)}; use another id, or send "
            "the same request to get its state"
        )


def _value_text(value: object) -> str:
    return "not given" if value is None else shown(value)


def merge_recipe(recipe: dict[str, Any], request: m.Vary) -> m.Generate:
    """Return a stored take's parameters with those of the request replaced."""
    named = {key: getattr(request, key) for key in m.Generate.__struct_fields__ if getattr(request, key) is not None}
    return m.Generate(**overlay(recipe, named))


def changed_model_warning(identity: m.Id, model: str) -> m.Warned:
    """Return the warning that a take was rendered with other weights of a model of the same name."""
    message = f"{model} has changed since this take was made: its sound is made by the new one, and differs"
    return m.Warned(id=identity, key="model", message=message)
