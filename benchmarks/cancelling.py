"""Steps that are still run after a cancel: those told between the cancel being sent and its `cancelled`.

Goal: at most 1.
"""

from benchmarks.machine import machine
from benchmarks.subject import served

ROUNDS = 20


def main() -> None:
    """Print the table."""
    print(f"steps told after a cancel was sent, {ROUNDS} rounds; {machine()}")
    for subject, client in served():
        after: list[int] = []
        client.timed(**subject.keys(0))
        for number in range(ROUNDS):
            client.send("generate", id=f"long-{number}", **{**subject.keys(number), "steps": 100})
            told = [client.until("progress")["step"] for _ in range(3)][-1:]
            client.send("cancel", id=f"long-{number}")
            while (event := client.until("progress", "cancelled"))["type"] == "progress":
                told.append(event["step"])
            after.append(told[-1] - told[0])
        print(f"  {subject.name:<8} at most {max(after)}, on average {sum(after) / len(after):.2f}")


if __name__ == "__main__":
    main()
