"""Requests, from a decoded message to the terminal event of each job."""
