"""The callbacks of the OSC In DAT that hears the daemon's answers."""


def onReceiveOSC(dat, rowIndex, message, byteData, timeStamp, address, args, peer):
    """TouchDesigner calls this for each message."""
    dat.parent().Receive(address, args)
