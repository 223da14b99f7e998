"""Transports: OSC, ZeroMQ, HTTP, WebSocket and in-process clients."""
