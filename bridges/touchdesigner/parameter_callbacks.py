"""Callbacks for changed or pulsed parameters of the component."""


def onPulse(par):
    """Handle a pressed button."""
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
    """Handle a value that the user changed."""
    if par.name == "Yield":
        par.owner.SetYield()
    elif par.name == "Model":
        par.owner.AskWords()
