"""Steps run after a cancel: those reported between sending the cancel and its `cancelled` event.

Goal: at most 1.
"""

from benchmarks.daemon import Client
from benchmarks.machine import machine
from benchmarks.measurement import Measurement
from benchmarks.subject import Subject, served

ROUND_COUNT = 20


def measure(subject: Subject, client: Client, rounds: int = ROUND_COUNT) -> Measurement:
    """Measure the largest number of steps."""
    steps_after_cancel: list[int] = []
    client.time_generate(**subject.keys(0))
    for number in range(rounds):
        client.send("generate", id=f"long-{number}", **{**subject.keys(number), "steps": 100})
        reported_steps = [client.until("progress")["step"] for _ in range(3)][-1:]
        client.send("cancel", id=f"long-{number}")
        while (event := client.until("progress", "cancelled"))["type"] == "progress":
            reported_steps.append(event["step"])
        steps_after_cancel.append(reported_steps[-1] - reported_steps[0])
    average = sum(steps_after_cancel) / len(steps_after_cancel)
    return Measurement(max(steps_after_cancel), f"on average {average:.2f}")


def main() -> None:
    """Print the table."""
    print(f"steps reported after a cancel was sent, {ROUND_COUNT} rounds; {machine()}")
    for subject, client in served():
        measured = measure(subject, client)
        print(f"  {subject.name:<8} at most {measured.value:.0f}, {measured.detail}")


if __name__ == "__main__":
    main()
