"""From the queue through the engine to the terminal event of each job."""
