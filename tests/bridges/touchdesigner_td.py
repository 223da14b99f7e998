"""Stand-ins for the part of TouchDesigner that the component uses, as its documentation describes it.

One thread, frame by frame: `Project.frame()` cooks one frame; scripts that wait run at its start, what came over UDP is
handed to callbacks then, parameters that changed are told at its end. A parameter, operator or method that is not here
is an AttributeError, as there.
"""

import socket
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from tests.integration import osc
from tests.patience import TIMEOUT_S

Value = Any


class Par:
    """A parameter: constant, or an expression."""

    def __init__(self, owner: "OP", name: str, style: str, default: Value = 0, page: str = "", label: str = "") -> None:
        self.owner, self.name, self.style, self.page, self.label = owner, name, style, page, label or name
        self.default = default
        self.expr = ""
        self.readOnly = False
        self.help = ""
        self.min = self.max = self.normMin = self.normMax = 0.0
        self.clampMin = self.clampMax = False
        self.menuNames: list[str] = []
        self.menuLabels: list[str] = []
        self._value = default

    @property
    def isPulse(self) -> bool:
        return self.style == "Pulse"

    @property
    def isDefault(self) -> bool:
        return not self.expr and self._value == self.default

    @property
    def val(self) -> Value:
        return self._value

    @val.setter
    def val(self, value: Value) -> None:
        assert not self.isPulse, f"{self.name} is a pulse: it has no value"
        value = self._fitting(value)
        changed, before, self._value = value != self._value, self._value, value
        if changed:
            self.owner.changed(self, before)

    def _fitting(self, value: Value) -> Value:
        if self.style == "Menu":
            assert value in self.menuNames, f"{self.name}: no entry {value!r} in {self.menuNames}"
        if self.style in ("Float", "Int"):
            value = float(value) if self.style == "Float" else int(value)
            value = max(value, self.min) if self.clampMin else value
            value = min(value, self.max) if self.clampMax else value
        if self.style == "Toggle":
            value = int(bool(value))
        return str(value) if self.style in ("Str", "StrMenu", "Menu", "File") else value

    def eval(self) -> Value:
        if self.expr:
            found = eval(self.expr, {"parent": self.owner.parent, "op": self.owner.op, "me": self.owner})
            return found.eval() if isinstance(found, Par) else found
        return self._value

    def pulse(self) -> None:
        assert self.isPulse, f"{self.name} is no pulse"
        self.owner.pulsed(self)


class ParCollection:
    """`op.par`: parameters as attributes and by name; assigning sets the constant value."""

    def __init__(self) -> None:
        object.__setattr__(self, "all", {})

    def __getattr__(self, name: str) -> Par:
        found: dict[str, Par] = object.__getattribute__(self, "all")
        if name not in found:
            raise AttributeError(f"there is no parameter {name}")
        return found[name]

    def __setattr__(self, name: str, value: Value) -> None:
        getattr(self, name).val = value

    def __getitem__(self, name: str) -> Par | None:
        return object.__getattribute__(self, "all").get(name)

    def __iter__(self) -> Iterator[Par]:
        return iter(object.__getattribute__(self, "all").values())


class Page:
    """A page of custom parameters. Names are a capital and then small letters and digits, as TouchDesigner insists."""

    def __init__(self, owner: "COMP", name: str) -> None:
        self.owner, self.name = owner, name

    def _append(self, style: str, name: str, label: str | None, default: Value) -> list[Par]:
        assert name.isalnum() and name == name.capitalize(), f"{name}: not a custom parameter's name"
        assert self.owner.par[name] is None, f"{name} is there already"
        par = Par(self.owner, name, style, default, self.name, label or name)
        if style in ("Float", "Int"):
            par.max = par.normMax = 1.0
        object.__getattribute__(self.owner.par, "all")[name] = par
        self.owner.customPars.append(par)
        return [par]

    def appendStr(self, name: str, label: str | None = None) -> list[Par]:
        return self._append("Str", name, label, "")

    def appendStrMenu(self, name: str, label: str | None = None) -> list[Par]:
        return self._append("StrMenu", name, label, "")

    def appendMenu(self, name: str, label: str | None = None) -> list[Par]:
        return self._append("Menu", name, label, "")

    def appendFloat(self, name: str, label: str | None = None, size: int = 1) -> list[Par]:
        return self._append("Float", name, label, 0.0)

    def appendInt(self, name: str, label: str | None = None, size: int = 1) -> list[Par]:
        return self._append("Int", name, label, 0)

    def appendToggle(self, name: str, label: str | None = None) -> list[Par]:
        return self._append("Toggle", name, label, 0)

    def appendPulse(self, name: str, label: str | None = None) -> list[Par]:
        return self._append("Pulse", name, label, None)


class OP:
    """Any operator."""

    built_in: ClassVar[dict[str, tuple[str, Value]]] = {}

    def __init__(self, project: "Project", parent: "COMP | None", name: str) -> None:
        self.project, self.name = project, name
        self._parent = parent
        self.valid = True
        self.nodeX = self.nodeY = 0
        self.docked: list[OP] = []
        self.errors: list[str] = []
        self.par = ParCollection()
        for par, (style, default) in self.built_in.items():
            object.__getattribute__(self.par, "all")[par] = Par(self, par, style, default)

    def parent(self) -> "COMP":
        assert self._parent is not None
        return self._parent

    def op(self, path: str) -> "OP | None":
        place: OP = self if isinstance(self, COMP) else self.parent()
        for part in path.removeprefix("./").split("/"):
            if part == "..":
                place = place.parent() if isinstance(self, COMP) or place is not self.parent() else self.parent()
            else:
                assert isinstance(place, COMP)
                found = place.children.get(part)
                if found is None:
                    return None
                place = found
        return place

    def destroy(self) -> None:
        self.valid = False
        if self._parent is not None:
            self._parent.children.pop(self.name, None)
            for other in self._parent.children.values():
                if self in other.docked:
                    other.docked.remove(self)

    def changed(self, par: Par, before: Value) -> None:
        """A parameter has another value."""

    def pulsed(self, par: Par) -> None:
        """A parameter was pulsed."""

    def addScriptError(self, message: str) -> None:
        self.errors.append(message)

    def clearScriptErrors(self, recurse: bool = False, error: str = "*") -> None:
        self.errors.clear()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name}")


class Extensions:
    """`comp.ext`."""


class COMP(OP):
    """A component: operators inside, custom parameters, extensions whose capitalised members are promoted."""

    built_in: ClassVar[dict[str, tuple[str, Value]]] = {
        "ext0object": ("Str", ""),
        "ext0name": ("Str", ""),
        "ext0promote": ("Toggle", 0),
        "initextonstart": ("Toggle", 0),
        "reinitextensions": ("Pulse", None),
    }

    def __init__(self, project: "Project", parent: "COMP | None", name: str) -> None:
        super().__init__(project, parent, name)
        self.children: dict[str, OP] = {}
        self.customPars: list[Par] = []
        self.ext = Extensions()

    def create(self, kind: type[OP], name: str) -> Any:
        assert name not in self.children
        made = self.children[name] = kind(self.project, self, name)
        return made

    def appendCustomPage(self, name: str) -> Page:
        return Page(self, name)

    def destroy(self) -> None:
        for extension in vars(self.ext).values():
            if hasattr(extension, "onDestroyTD"):
                extension.onDestroyTD()
        for child in list(self.children.values()):
            child.destroy()
        super().destroy()

    def changed(self, par: Par, before: Value) -> None:
        if par in self.customPars:
            self.project.told_at_end_of_frame(self, par, before)

    def pulsed(self, par: Par) -> None:
        if par.name == "reinitextensions":
            code = self.par.ext0object.eval().replace("op('./", "op('")
            for before in vars(self.ext).values():
                if hasattr(before, "onDestroyTD"):
                    before.onDestroyTD()
            made = eval(code, {"op": self.op, "me": self})
            setattr(self.ext, type(made).__name__, made)
        else:
            self.project.pulse(self, par)

    def __getattr__(self, name: str) -> Any:
        if name[:1].isupper() and self.__dict__.get("par") is not None and self.par.ext0promote.eval():
            for extension in vars(self.__dict__["ext"]).values():
                if hasattr(extension, name):
                    return getattr(extension, name)
        return super().__getattr__(name)


class baseCOMP(COMP):  # noqa: N801  TouchDesigner's name
    pass


class textDAT(OP):  # noqa: N801
    built_in: ClassVar[dict[str, tuple[str, Value]]] = {"file": ("File", "")}

    def __init__(self, project: "Project", parent: COMP | None, name: str) -> None:
        super().__init__(project, parent, name)
        self.text = ""
        self._module: types.ModuleType | None = None

    @property
    def module(self) -> types.ModuleType:
        """The text as a module; texts beside it can be imported by their names."""
        if self._module is None:
            self._module = types.ModuleType(self.name)
            beside = {child.name: child for child in self.parent().children.values() if isinstance(child, textDAT)}
            with importable(beside, self):
                exec(compile(self.text, self.name + ".py", "exec"), self._module.__dict__)
        return self._module


class importable:  # noqa: N801  a context manager, used as a function
    """While it lasts, `import NAME` finds a Text DAT of this name in the same network."""

    def __init__(self, texts: dict[str, textDAT], importer: textDAT) -> None:
        self.texts, self.importer = texts, importer

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        from importlib.machinery import ModuleSpec

        text = self.texts.get(name)
        loader: Any = self
        return ModuleSpec(name, loader) if text is not None and text is not self.importer else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return self.texts[spec.name].module

    def exec_module(self, module: types.ModuleType) -> None:
        """It has run already."""

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)  # pyright: ignore[reportArgumentType]

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        for name in self.texts:
            sys.modules.pop(name, None)


class Cell(str):
    """A table's cell."""

    __slots__ = ()


class tableDAT(OP):  # noqa: N801
    def __init__(self, project: "Project", parent: COMP | None, name: str) -> None:
        super().__init__(project, parent, name)
        self.rows: list[list[str]] = [[""]]

    @property
    def numRows(self) -> int:
        return len(self.rows)

    def clear(self) -> None:
        self.rows.clear()

    def appendRow(self, values: Sequence[Value]) -> None:
        self.rows.append([str(value) for value in values])

    def insertRow(self, values: Sequence[Value], at: int) -> None:
        self.rows.insert(at, [str(value) for value in values])

    def deleteRow(self, at: int) -> None:
        del self.rows[at]

    def __getitem__(self, place: tuple[int, str | int]) -> Cell:
        row, column = place
        return Cell(self.rows[row][self.rows[0].index(column) if isinstance(column, str) else column])


class oscoutDAT(OP):  # noqa: N801
    built_in: ClassVar[dict[str, tuple[str, Value]]] = {
        "active": ("Toggle", 1),
        "address": ("Str", "localhost"),
        "port": ("Int", 10000),
        "localaddress": ("Str", ""),
    }

    def sendOSC(self, address: str, values: list[Value], asBundle: bool = False) -> int:
        """Numbers go as i and f, texts as s; nothing else is taken."""
        assert all(type(value) in (int, float, str) for value in values), values
        packet = osc.message(address, *values)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            return line.sendto(packet, (self.par.address.eval(), self.par.port.eval()))


class oscinDAT(OP):  # noqa: N801
    """Opens its port when it is first cooked, and again when the port is another."""

    built_in: ClassVar[dict[str, tuple[str, Value]]] = {
        "active": ("Toggle", 1),
        "port": ("Int", 10000),
        "localaddress": ("Str", ""),
        "callbacks": ("Str", ""),
    }

    def __init__(self, project: "Project", parent: COMP | None, name: str) -> None:
        super().__init__(project, parent, name)
        assert parent is not None
        self.docked = [parent.create(textDAT, name + "_callbacks")]
        self.par.callbacks = name + "_callbacks"
        self.line: socket.socket | None = None
        self.port = 0

    def cook(self) -> None:
        port = self.par.port.eval()
        if self.line is None or port != self.port:
            self._open(port)
        assert self.line is not None
        while True:
            try:
                packet, (host, source) = self.line.recvfrom(65536)
            except BlockingIOError:
                return
            received = osc.parse(packet)
            callbacks = self.op(self.par.callbacks.eval())
            assert isinstance(callbacks, textDAT)
            address, peer = "/timbred/" + received.name, types.SimpleNamespace(address=host, port=source, owner=self)
            shown = f"{address} {' '.join(map(str, received.arguments))}"
            callbacks.module.onReceiveOSC(self, 0, shown, packet, time.time(), address, list(received.arguments), peer)

    def _open(self, port: int) -> None:
        if self.line is not None:
            self.line.close()
        self.line, self.port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), port
        self.line.setblocking(False)
        self.line.bind((self.par.localaddress.eval(), port))

    def destroy(self) -> None:
        if self.line is not None:
            self.line.close()
        super().destroy()


class parameterexecuteDAT(textDAT):  # noqa: N801
    built_in: ClassVar[dict[str, tuple[str, Value]]] = {
        "active": ("Toggle", 1),
        "op": ("Str", ""),
        "pars": ("Str", ""),
        "custom": ("Toggle", 0),
        "builtin": ("Toggle", 1),
        "onpulse": ("Toggle", 0),
        "valuechange": ("Toggle", 0),
    }


class audiofileinCHOP(OP):  # noqa: N801
    """Keeps a log of what it held and played: (file, playing, cues)."""

    built_in: ClassVar[dict[str, tuple[str, Value]]] = {
        "file": ("File", ""),
        "play": ("Toggle", 1),
        "playmode": ("StrMenu", "locked"),
        "repeat": ("Toggle", 1),
        "cuepulse": ("Pulse", None),
        "reloadpulse": ("Pulse", None),
    }

    def __init__(self, project: "Project", parent: COMP | None, name: str) -> None:
        super().__init__(project, parent, name)
        self.cues = 0
        self.log: list[tuple[str, int]] = []

    def pulsed(self, par: Par) -> None:
        self.cues += par.name == "cuepulse"

    def cook(self) -> None:
        """What is heard in this frame."""
        state = (self.par.file.eval(), self.par.play.eval())
        if not self.log or self.log[-1] != state:
            self.log.append(state)


class Connector:
    def __init__(self) -> None:
        self.source: OP | None = None

    def connect(self, source: OP) -> None:
        self.source = source


class outCHOP(OP):  # noqa: N801
    def __init__(self, project: "Project", parent: COMP | None, name: str) -> None:
        super().__init__(project, parent, name)
        self.inputConnectors = [Connector()]


class Run:
    """A script that waits."""

    def __init__(self, script: str, arguments: tuple[Any, ...], frames: int, due: float, from_op: OP | None) -> None:
        self.script, self.arguments, self.frames, self.due, self.from_op = script, arguments, frames, due, from_op
        self.active = True

    def kill(self) -> None:
        self.active = False


class Project:
    """The running project: `td.project`."""

    def __init__(self) -> None:
        self.cookRate = 60.0
        self.root = COMP(self, None, "project1")
        self.runs: list[Run] = []
        self._changes: list[tuple[COMP, Par, Value]] = []

    def module(self) -> types.ModuleType:
        """`import td`."""
        made = types.ModuleType("td")
        for kind in (baseCOMP, textDAT, tableDAT, oscoutDAT, oscinDAT, parameterexecuteDAT, audiofileinCHOP, outCHOP):
            setattr(made, kind.__name__, kind)
        made.__dict__.update(project=self, run=self.run, op=self.root.op)
        return made

    def run(
        self, script: str, *arguments: Any, delayFrames: int = 0, delayMilliSeconds: int = 0, fromOP: OP | None = None
    ) -> Run:
        made = Run(script, arguments, delayFrames, time.monotonic() + delayMilliSeconds / 1000, fromOP)
        self.runs.append(made)
        return made

    def frame(self) -> None:
        """One frame: scripts that are due, packets, what changed, what is heard."""
        for run in list(self.runs):
            run.frames -= 1
            if run.frames < 0 and time.monotonic() >= run.due:
                self.runs.remove(run)
                if run.active and (run.from_op is None or run.from_op.valid):
                    exec(run.script, {"args": run.arguments})
        for operator in self._all(self.root):
            if isinstance(operator, oscinDAT) and operator.par.active.eval():
                operator.cook()
        changes, self._changes = self._changes, []
        for component, par, before in changes:
            self._call(component, par, "valuechange", lambda module, p=par, b=before: module.onValueChange(p, b))
        for operator in self._all(self.root):
            if isinstance(operator, audiofileinCHOP):
                operator.cook()

    def until(self, true: Callable[[], bool]) -> None:
        """Frame after frame until something holds."""
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < TIMEOUT_S, "it didn't come true"
            time.sleep(1 / 60)  # a frame's time: this is a render loop
            self.frame()

    def told_at_end_of_frame(self, component: COMP, par: Par, before: Value) -> None:
        self._changes.append((component, par, before))

    def pulse(self, component: COMP, par: Par) -> None:
        self._call(component, par, "onpulse", lambda module: module.onPulse(par))

    def _call(self, component: COMP, par: Par, kind: str, call: Callable[[types.ModuleType], None]) -> None:
        for watcher in list(component.children.values()):
            if isinstance(watcher, parameterexecuteDAT) and watcher.par.active.eval() and watcher.par[kind]:
                reported = watcher.par[kind]
                if reported is not None and reported.eval() and watcher.op(watcher.par.op.eval()) is component:
                    call(watcher.module)

    def _all(self, place: COMP) -> Iterator[OP]:
        for child in list(place.children.values()):
            yield child
            if isinstance(child, COMP):
                yield from self._all(child)
