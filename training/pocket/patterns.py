"""Drum patterns of named styles: sixteenth steps of one bar in 4/4, with random variations in each bar."""

from timbred.models.pocket import DrumStyle

KICK, RIM, SNARE, CLAP, CLOSED, PEDAL, OPEN, CRASH, RIDE = 36, 37, 38, 39, 42, 44, 46, 49, 51
TAMBOURINE, COWBELL, HIGH_CONGA, LOW_CONGA, MARACAS, CLAVES = 54, 56, 63, 64, 70, 75
FLOOR_TOM, LOW_TOM, MID_TOM, HIGH_TOM = 41, 45, 47, 50


STYLES: dict[str, DrumStyle] = {
    "rock": DrumStyle(
        ("rock", "rock", "classic rock", "hard rock"),
        (90, 150),
        (0, 8, 16),
        (
            {KICK: "X.......X.x.....", SNARE: "....X.......X..?", CLOSED: "X.x.X.x.X.x.X.x."},
            {KICK: "X..x....x.x.....", SNARE: "....X.......X...", RIDE: "X.x.X.x.X.x.X.x."},
        ),
    ),
    "pop": DrumStyle(
        ("pop", "pop", "dance pop"),
        (90, 130),
        (0, 8, 24),
        (
            {KICK: "X.....x.X.......", SNARE: "....X.......X...", CLOSED: "x.x.x.x.x.x.x.x.", CLAP: "....?.......?..."},
            {KICK: "X..x..x...x.....", SNARE: "....X.......X...", CLOSED: "xoxoxoxoxoxoxoxo"},
        ),
    ),
    "funk": DrumStyle(
        ("funk", "funk", "funky", "seventies funk"),
        (90, 120),
        (0, 8),
        (
            {KICK: "X..x......x..x..", SNARE: "....X..o.o..X..o", CLOSED: "xoxoxoxoxoxoxoxo", OPEN: "..............?."},
            {KICK: "X.x.......xx....", SNARE: "....X..o.o.oX...", CLOSED: "x.xxx.xxx.xxx.xx"},
        ),
    ),
    "house": DrumStyle(
        ("house", "house", "deep house", "disco", "four on the floor"),
        (115, 130),
        (25, 24),
        (
            {KICK: "X...X...X...X...", CLAP: "....X.......X...", OPEN: "..x...x...x...x.", CLOSED: "o.o.o.o.o.o.o.o."},
            {
                KICK: "X...X...X...X..?",
                SNARE: "....X.......X...",
                OPEN: "..x...x...x...x.",
                MARACAS: "xoxoxoxoxoxoxoxo",
            },
        ),
    ),
    "techno": DrumStyle(
        ("techno", "techno", "minimal techno", "industrial techno"),
        (122, 145),
        (25, 24),
        (
            {KICK: "X...X...X...X...", CLOSED: "..x...x...x...x.", RIM: "...x..x....x..x."},
            {
                KICK: "X...X...X...X...",
                CLOSED: "xoxoxoxoxoxoxoxo",
                CLAP: "....X.......X...",
                FLOOR_TOM: "..?..?....?....?",
            },
        ),
    ),
    "hip hop": DrumStyle(
        ("hip hop", "hip hop", "boom bap", "hip-hop", "dusty", "lo-fi hip hop"),
        (70, 105),
        (0, 8, 25),
        (
            {KICK: "X......x..X.....", SNARE: "....X.......X...", CLOSED: "x.x.x.x.x.x.x.x."},
            {KICK: "X..x......xx....", SNARE: "....X.......X..o", CLOSED: "x.x.x.xxx.x.x.x."},
        ),
        0.28,
    ),
    "trap": DrumStyle(
        ("trap", "trap", "drill"),
        (60, 85),
        (25,),
        (
            {KICK: "X.....x...x.....", CLAP: "........X.......", CLOSED: "xxxxxxxxxxxxxxxx", OPEN: "..............?."},
            {KICK: "X..x......x..x..", SNARE: "........X.......", CLOSED: "x.x.xxx.x.x.xxxx"},
        ),
    ),
    "drum and bass": DrumStyle(
        ("drum and bass", "dnb", "jungle", "drum n bass", "d&b"),
        (160, 180),
        (0, 24),
        (
            {KICK: "X.........X.....", SNARE: "....X.......X...", CLOSED: "x.x.x.x.x.x.x.x."},
            {KICK: "X.x.......xx....", SNARE: "....X..o.o..X..o", CLOSED: "x.x.x.x.x.x.x.x.", RIDE: "?...?...?...?..."},
        ),
    ),
    "breakbeat": DrumStyle(
        ("breakbeat", "break", "breaks", "big beat"),
        (110, 145),
        (0, 8, 16),
        (
            {KICK: "X.x.......x.....", SNARE: "....X..x.x..X..x", CLOSED: "x.x.x.x.x.x.x.x."},
            {KICK: "X.x.......xx....", SNARE: "....X..x.x....X.", OPEN: "..........?.....", RIDE: "x.x.x.x.x.x.x.x."},
        ),
    ),
    "reggae": DrumStyle(
        ("reggae", "reggae", "one drop", "dub"),
        (65, 95),
        (0, 8),
        (
            {KICK: "........X.......", RIM: "........X.......", CLOSED: "x.x.x.x.x.x.x.x."},
            {KICK: "X.......X.......", RIM: "....?...X.....?.", CLOSED: "xoxox.xoxoxox.xo"},
        ),
        0.2,
    ),
    "jazz": DrumStyle(
        ("jazz", "jazz", "swing", "bebop"),
        (90, 180),
        (32, 40),
        (
            {RIDE: "X...x.x.X...x.x.", PEDAL: "....x.......x...", KICK: "o.....?...o.....", SNARE: "......?.......?."},
            {RIDE: "X...x.x.X...x.x.", PEDAL: "....x.......x...", SNARE: "..?.......?...o."},
        ),
        0.62,
    ),
    "latin": DrumStyle(
        ("latin", "latin", "salsa", "bossa nova", "samba"),
        (90, 135),
        (0, 32),
        (
            {
                CLAVES: "x..x..x...x.x...",
                HIGH_CONGA: "..x...xx..x...xx",
                LOW_CONGA: "......o.......o.",
                MARACAS: "xoxoxoxoxoxoxoxo",
            },
            {KICK: "X..xX..xX..xX..x", RIM: "x..x..x...x..x..", CLOSED: "xoxoxoxoxoxoxoxo"},
        ),
    ),
    "percussion": DrumStyle(
        ("percussion", "percussion", "hand percussion", "tribal", "african"),
        (80, 140),
        (0,),
        (
            {
                HIGH_CONGA: "X..x..x.x..x..x.",
                LOW_CONGA: "...x...x...x..xx",
                MARACAS: "x.x.x.x.x.x.x.x.",
                COWBELL: "?...?...?...?...",
            },
            {60: "X.xx..x.X.xx..x.", 61: "....x..x....x.x.", TAMBOURINE: "..x...x...x...x."},
        ),
    ),
}
"""Thirteen styles. Each is rendered at any tempo, most often in its usual range."""
