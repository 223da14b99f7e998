"""Models that clients want in memory, or gone from it."""

import logging

from timbred import errors
from timbred.engine.registry import Registry
from timbred.jobs.dispatch.orders import Orders
from timbred.jobs.dispatch.trials import Trials
from timbred.jobs.remembered import Remembered
from timbred.jobs.residents import Residents
from timbred.protocol.exchange import ClientId

log = logging.getLogger(__name__)


class Loads:
    """Decides which loads and unloads the engine is told of; `Residents` answers them."""

    def __init__(
        self, registry: Registry, residents: Residents, remembered: Remembered, trials: Trials, orders: Orders
    ) -> None:
        self._registry = registry
        self._residents = residents
        self._remembered = remembered
        self._trials = trials
        self._orders = orders

    def load(self, client: ClientId, name: str) -> None:
        """Make a model resident for this client.

        Raises:
            UnknownModel, MissingWeights, ModelError: it can't be loaded.
            WorkerLost: no engine can be started.
        """
        entry = self._registry[name]
        if not self._residents.is_resident(name):
            entry.checkpoint()
        self._orders.check_engine()
        source = self._orders.source_of(name)
        if self._residents.want(client, source):
            self._orders.load(source)

    def preload(self, name: str) -> None:
        """Make a model resident from the engine's start on, if its files are here."""
        try:
            self._registry[name].checkpoint()
        except errors.TimbredError as error:
            log.warning("the default model isn't loaded: %s", error)
            return
        self._residents.preload(self._orders.source_of(name))

    def order_again(self) -> None:
        """A new engine is there: it loads what is still wanted."""
        for source in self._residents.wanted():
            self._orders.load(source)

    def unload(self, client: ClientId, name: str) -> None:
        """Free a model's memory.

        Raises:
            UnknownModel: there is none of this name.
            BadRequest: it is in use.
        """
        _ = self._registry[name]
        users = [job for job in self._remembered.live() if job.parameters.model == name]
        if users:
            raise errors.BadRequest(
                f"model: {name} is in use by {len(users)} request(s), the first is {users[0].id}; cancel or await them"
            )
        if self._trials.uses(name):
            raise errors.BadRequest(f"model: {name} is being timed for a request with a deadline; unload it after that")
        if self._residents.unwant(client, name):
            self._orders.unload(name)
