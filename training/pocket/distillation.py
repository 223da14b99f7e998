"""`python -m training.pocket.distillation`: distil the generator to four steps without guidance at inference.

The teacher with guidance takes several substeps for each step of the student; the student learns the mean velocity of
the step. The student's input is the time at which a step begins, which determines the time at which it ends.
"""

import argparse
import itertools
import math

import numpy as np
import torch
from torch import Tensor

from training.pocket.generator import Generator, times, velocity
from training.pocket.generator_training import TOKENS_A_BATCH, Batch, Batches, check_origin, load_text_side, origin_of
from training.pocket.latents import Latents
from training.pocket.pipeline import STUDENT_STEPS, TEACHER_GUIDANCE
from training.pocket.running import Average, Clock, choose_device, load_checkpoint, log_figures, save_checkpoint

STAGE = "student"
SEED = 41
LEARNING_RATE = 2e-4
WARMUP_STEPS = 100
HALVING_STEPS = 4000
TEACHER_SUBSTEPS = 3


def learning_rate(step: int) -> float:
    """Return the learning rate of a step: warm-up, then inverse square root of the step."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) / math.sqrt(1 + step / HALVING_STEPS)


@torch.no_grad()
def run_teacher(teacher: Generator, batch: Batch, noise: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
    """Return a noisy state at time `now`, and the mean velocity of the teacher from there to time `then`."""
    start = (1 - now) * batch.sound + now * noise
    state = start
    substeps = np.linspace(now, then, TEACHER_SUBSTEPS + 1).tolist()
    for first, last in itertools.pairwise(substeps):
        state = state + (last - first) * velocity(teacher, state, first, batch.vector, batch.tokens, TEACHER_GUIDANCE)
    return start, (state - start) / (then - now)


def distillation_loss(student: Generator, teacher: Generator, batch: Batch, step: int) -> Tensor:
    """Return the squared error of the student's velocity in its step number `step`."""
    schedule = times(STUDENT_STEPS)
    noise = torch.randn_like(batch.sound)
    start, target = run_teacher(teacher, batch, noise, schedule[step], schedule[step + 1])
    starts = torch.full((len(start),), schedule[step], device=start.device)
    predicted = student(start, starts, batch.vector, batch.tokens)
    mask = batch.mask()
    return ((predicted - target).square() * mask).sum() / (mask.sum() * start.shape[2])


@torch.no_grad()
def held_out_figures(student: Generator, teacher: Generator, batches: Batches) -> dict[str, float]:
    """Return the error of each of the student's steps."""
    random = np.random.default_rng(0)
    figures: dict[str, float] = {}
    for step in range(STUDENT_STEPS):
        losses = [distillation_loss(student, teacher, batches.draw(random), step) for _ in range(4)]
        figures[f"error of step {step + 1}"] = float(torch.stack(losses).mean())
    return figures


def train(minutes: float, device: torch.device, tokens: int, prepared: int = 0) -> None:
    """Train for some minutes.

    Raises:
        FileNotFoundError: The generator or the text encoder hasn't been trained.
    """
    trained = load_checkpoint("generator")
    if trained is None:
        raise FileNotFoundError(
            "the generator isn't trained yet: run python -m training.pocket.generator_training first"
        )
    side, latents = load_text_side(device), Latents("training")
    origin = origin_of(latents, side)
    check_origin("generator", trained, origin)
    teacher, student = Generator().to(device).eval().requires_grad_(False), Generator().to(device)
    teacher.load_state_dict(trained["average"])
    student.load_state_dict(trained["average"])
    average = Average(student, 0.998)
    optimiser = torch.optim.AdamW(student.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.0)
    step = 0
    if state := load_checkpoint(STAGE):
        check_origin(STAGE, state, origin)
        student.load_state_dict(state["student"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        if "optimiser" in state:  # missing after a training on another machine
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    batches = Batches(latents, side, device, tokens, prompt_dropout=0.0)
    held_out = Batches(Latents("held-out"), side, device, tokens, prompt_dropout=0.0)
    if prepared:
        batches.prepare(prepared)
    print(f"student from step {step}", flush=True)
    torch.manual_seed(SEED + step)
    random = np.random.default_rng((SEED, step))

    def save() -> None:
        save_checkpoint(
            STAGE,
            student=student.state_dict(),
            average=average.weights,
            optimiser=optimiser.state_dict(),
            step=step,
            origin=origin,
        )

    def measure() -> None:
        averaged = Generator().to(device).eval()
        averaged.load_state_dict(average.weights)
        figures = held_out_figures(averaged, teacher, held_out)
        log_figures("student held-out", step, figures)
        print(f"student held-out  step {step}  {figures}", flush=True)

    clock = Clock(STAGE, minutes, save, measure)
    going = True
    while going:
        batch = batches.draw(random)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        with torch.autocast(device.type, torch.bfloat16):
            loss = distillation_loss(student, teacher, batch, int(random.integers(STUDENT_STEPS)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(student, step)
        going = clock.tick(step, loss=float(loss.detach()))


def main() -> None:
    """Train the student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=TOKENS_A_BATCH)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device), arguments.tokens)


if __name__ == "__main__":
    main()
