"""Periodic and random sources. All return float64 arrays of shape (samples,), about -1..1.

`frequency` arguments are in hertz, a number or an array of one value per sample.
"""

import numpy as np

RATE = 32_000
"""Sample rate of the synthesis in hertz."""
Signal = np.ndarray


def midi_to_hertz(note: float) -> float:
    """Return the frequency of a MIDI note in equal temperament, 69 = 440 Hz."""
    return float(440.0 * 2.0 ** ((note - 69.0) / 12.0))


def cycles(frequency: Signal | float, samples: int, start: float = 0.0) -> Signal:
    """Return the unwrapped phase in cycles of an oscillator at `frequency`, from `start`."""
    step = np.broadcast_to(np.asarray(frequency, dtype=np.float64) / RATE, (samples,))
    return start + np.concatenate(([0.0], np.cumsum(step)[:-1]))


def sine(frequency: Signal | float, samples: int, start: float = 0.0) -> Signal:
    """Return a sine wave."""
    return np.sin(2 * np.pi * cycles(frequency, samples, start))


def _step_correction(phase: Signal, step: Signal) -> Signal:
    """Return the polyBLEP correction of a unit step at phase 0, `phase` in 0..1."""
    correction = np.zeros_like(phase)
    after = phase < step
    ratio = phase[after] / step[after]
    correction[after] = 2 * ratio - ratio**2 - 1
    before = phase > 1 - step
    ratio = (phase[before] - 1) / step[before]
    correction[before] = ratio**2 + 2 * ratio + 1
    return correction


def saw(frequency: Signal | float, samples: int, start: float = 0.0) -> Signal:
    """Return a band-limited rising sawtooth."""
    phase = cycles(frequency, samples, start) % 1.0
    step = np.broadcast_to(np.asarray(frequency, dtype=np.float64) / RATE, (samples,))
    return 2 * phase - 1 - _step_correction(phase, step)


def pulse(frequency: Signal | float, samples: int, width: float = 0.5, start: float = 0.0) -> Signal:
    """Return a band-limited pulse wave of duty cycle `width`, the difference of two sawtooths."""
    return saw(frequency, samples, start) - saw(frequency, samples, start + width)


def triangle(frequency: Signal | float, samples: int, start: float = 0.0) -> Signal:
    """Return a triangle wave, not band-limited: its aliasing falls at 12 dB per octave."""
    return 4 * np.abs((cycles(frequency, samples, start) + 0.75) % 1.0 - 0.5) - 1


def supersaw(frequency: Signal | float, samples: int, voices: int, cents: float, random: np.random.Generator) -> Signal:
    """Return `voices` sawtooths, detuned evenly over +-`cents`, with random phases."""
    spread = np.linspace(-cents, cents, voices) if voices > 1 else np.zeros(1)
    total = np.zeros(samples)
    for offset in spread:
        total += saw(np.asarray(frequency) * 2.0 ** (offset / 1200), samples, float(random.uniform()))
    return total / np.sqrt(voices)


def frequency_modulation(carrier: Signal | float, ratio: float, index: Signal | float, samples: int) -> Signal:
    """Return two-operator FM: modulator at `ratio` x carrier, modulation `index` in radians (may be an envelope)."""
    modulator = sine(np.asarray(carrier) * ratio, samples)
    return np.sin(2 * np.pi * cycles(carrier, samples) + np.asarray(index) * modulator)


def partials(frequencies: Signal, amplitudes: Signal, decays: Signal, samples: int) -> Signal:
    """Return a sum of decaying sines. `decays` are times to -60 dB in seconds; partials above 15 kHz are omitted."""
    time = np.arange(samples) / RATE
    total = np.zeros(samples)
    for frequency, amplitude, decay in zip(frequencies, amplitudes, decays, strict=True):
        if frequency < 15_000:
            total += amplitude * np.exp(-6.908 * time / decay) * np.sin(2 * np.pi * frequency * time)
    return total


def plucked_string(frequency: float, samples: int, damping: float, excitation: Signal) -> Signal:
    """Return a Karplus-Strong string: a delay loop with a two-point average and loss (Computer Music Journal 7:2).

    Args:
        frequency: hertz.
        samples: length of the result.
        damping: gain per period, 0.9 (short) .. 0.999 (long decay).
        excitation: one period in any number of samples; it is resampled to the period.
    """
    period = max(8, round(RATE / frequency))
    current = np.interp(np.linspace(0, 1, period), np.linspace(0, 1, len(excitation)), excitation)
    periods = []
    for _ in range(int(np.ceil(samples * 1.1 / period)) + 2):
        periods.append(current)
        current = damping * 0.5 * (current + np.roll(current, 1))
    string = np.concatenate(periods)
    # the average delays by half a sample; a faster readout corrects the pitch
    positions = np.arange(samples) * (frequency * (period + 0.5) / RATE)
    return np.interp(positions, np.arange(len(string)), string)


def white_noise(samples: int, random: np.random.Generator) -> Signal:
    """Return Gaussian noise of standard deviation 0.35, so that few peaks exceed 1."""
    return 0.35 * random.standard_normal(samples)


def coloured_noise(samples: int, exponent: float, random: np.random.Generator) -> Signal:
    """Return noise with a power of 1 / frequency ** `exponent` (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20.0)
    shaped = np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)
    return 0.35 * shaped / (np.std(shaped) + 1e-12)


def grains(
    samples: int, per_second: float, seconds: float, low_hertz: float, high_hertz: float, random: np.random.Generator
) -> Signal:
    """Return short decaying sines at random times: drops, crackle.

    Args:
        samples: length of the result.
        per_second: mean number of grains a second.
        low_hertz: lowest frequency of a grain.
        high_hertz: highest frequency of a grain.
        random: source of times, frequencies and levels.
        seconds: time of a grain to -60 dB.
    """
    total = np.zeros(samples)
    length = max(16, min(samples, int(seconds * RATE)))
    time = np.arange(length) / RATE
    envelope = np.exp(-6.908 * time / seconds)
    for _ in range(max(2, random.poisson(per_second * samples / RATE))):
        start = int(random.uniform(0, samples))
        frequency = np.exp(random.uniform(np.log(low_hertz), np.log(high_hertz)))
        grain = envelope * np.sin(2 * np.pi * frequency * time + random.uniform(0, 6.28))
        stop = min(samples, start + length)
        total[start:stop] += random.uniform(0.2, 1.0) ** 2 * grain[: stop - start]
    return total
