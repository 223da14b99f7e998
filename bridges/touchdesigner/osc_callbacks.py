"""Callbacks of the OSC In DAT that receives the daemon's answers."""


def onReceiveOSC(dat, rowIndex, message, byteData, timeStamp, address, args, peer):
    """Handle a message; called by TouchDesigner."""
    dat.parent().Receive(address, args)
