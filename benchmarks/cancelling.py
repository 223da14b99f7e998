"""Steps run after a cancel: those reported between sending the cancel and its `cancelled` event.

Goal: at most 1.
"""

from benchmarks.machine import machine
from benchmarks.subject import served

ROUND_COUNT = 20


def main() -> None:
    """Print the table."""
    print(f"steps reported after a cancel was sent, {ROUND_COUNT} rounds; {machine()}")
    for subject, client in served():
        steps_after_cancel: list[int] = []
        client.time_generate(**subject.keys(0))
        for number in range(ROUND_COUNT):
            client.send("generate", id=f"long-{number}", **{**subject.keys(number), "steps": 100})
            reported_steps = [client.until("progress")["step"] for _ in range(3)][-1:]
            client.send("cancel", id=f"long-{number}")
            while (event := client.until("progress", "cancelled"))["type"] == "progress":
                reported_steps.append(event["step"])
            steps_after_cancel.append(reported_steps[-1] - reported_steps[0])
        print(
            f"  {subject.name:<8} at most {max(steps_after_cancel)}, "
            f"on average {sum(steps_after_cancel) / len(steps_after_cancel):.2f}"
        )


if __name__ == "__main__":
    main()
