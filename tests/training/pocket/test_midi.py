from training.pocket.midi import Score


def test_score_orders_events_and_counts_milliseconds() -> None:
    score = Score()
    score.note(0.5, 0.25, 0, 60, 100)
    score.program(0.1, 0, 8, 14)
    data = score.to_bytes(1.0)
    assert data[:4] == b"MThd"
    body = data[22:]
    assert body.startswith(b"\0\xff\x51\x03\x0f\x42\x40")
    # 100 ms: bank, program; 400 ms later the note, 250 ms later its end, then the end of the track.
    events = b"\x64\xb0\0\x08" + b"\0\xc0\x0e" + b"\x83\x10\x90\x3c\x64" + b"\x81\x7a\x80\x3c\0" + b"\x81\x7a\xff\x2f\0"
    assert body[7:] == events


def test_score_ends_a_note_before_the_same_note_begins() -> None:
    score = Score()
    score.note(0.0, 0.5, 9, 36, 90)
    score.note(0.5, 0.5, 9, 36, 90)
    body = score.to_bytes(1.0)[29:]
    assert body.index(b"\x89\x24\0") < body.index(b"\x99\x24\x5a", 5)
