"""Callbacks for changed or pulsed parameters of the component."""


def onPulse(par):
    """A button was pressed."""
    component = par.owner
    if par.name == "Generate":
        component.Generate()
    elif par.name == "Vary":
        component.Vary()
    elif par.name == "Cancel":
        component.Cancel()
    elif par.name == "Play":
        sound = component.op("sound")
        sound.par.cuepulse.pulse()
        sound.par.play = 1


def onValueChange(par, prev):
    """A value was changed by hand."""
    if par.name == "Yield":
        par.owner.GiveWay()
