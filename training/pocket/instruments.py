"""Tables of the General MIDI sounds that the data set renders: names, synonyms, ranges.

Notes are MIDI numbers, 60 = c4.
"""

from timbred.models.pocket import Instrument

_TABLE = """
piano
0:0 s 24 100 grand piano, piano, acoustic grand, concert grand, acoustic piano
8:0 s 24 100 mellow piano, soft piano, felt piano, mellow grand piano
0:1 s 24 100 bright piano, bright acoustic piano, pop piano
0:3 s 24 100 honky-tonk piano, honky tonk, honkytonk, saloon piano, bar piano, detuned piano
0:4 s 28 96 electric piano, rhodes, e-piano, tine piano, epiano, electric rhodes
0:5 s 28 96 fm electric piano, dx7 piano, fm piano, digital piano
0:6 s 29 89 harpsichord, cembalo, baroque harpsichord
0:7 s 29 84 clavinet, clav, funky clavinet, clavi
chromatic percussion
0:8 s 60 108 celesta, celeste
0:9 s 67 108 glockenspiel, glock, orchestra bells
0:10 s 60 96 music box, musicbox, toy music box
0:11 s 53 89 vibraphone, vibes, vibraharp
0:12 s 48 96 marimba, wooden marimba
0:13 s 60 108 xylophone, xylo
0:14 s 48 84 tubular bells, tubular bell, orchestral chimes
8:14 s 36 84 church bell, church bells, cathedral bell
0:15 s 48 84 dulcimer, hammered dulcimer, santur
organ
0:16 h 36 96 drawbar organ, hammond organ, hammond, tonewheel organ
0:17 h 36 96 percussive organ, jazz organ, hammond with percussion
0:18 h 36 96 rock organ, leslie organ, rotary organ
0:19 h 36 96 church organ, pipe organ, cathedral organ, organ
0:20 h 36 96 reed organ, harmonium, pump organ
0:21 h 48 89 accordion, french accordion, musette
0:22 h 60 84 harmonica, blues harp, mouth organ
0:23 h 48 89 bandoneon, tango accordion
guitar
0:24 s 40 83 nylon guitar, classical guitar, spanish guitar, nylon string guitar, guitar
0:25 s 40 83 steel guitar, acoustic guitar, folk guitar, steel string guitar
8:25 s 40 83 12-string guitar, twelve string guitar, 12 string
8:24 s 55 84 ukulele, uke
16:25 s 55 91 mandolin
0:26 s 40 86 jazz guitar, hollow body guitar, jazz electric guitar
8:26 s 48 84 hawaiian guitar, lap steel, slide guitar
0:27 s 40 86 clean guitar, clean electric guitar, electric guitar, stratocaster
0:28 s 40 86 muted guitar, palm muted guitar, palm mute guitar
8:28 s 40 86 funk guitar, wah guitar
0:29 h 40 86 overdriven guitar, overdrive guitar, rock guitar
0:30 h 40 86 distortion guitar, distorted guitar, heavy guitar, metal guitar
0:31 s 52 96 guitar harmonics, flageolet guitar, harmonic guitar
bass
0:32 s 28 60 acoustic bass, upright bass, double bass pizzicato, jazz bass, stand-up bass
0:33 s 28 60 finger bass, electric bass, bass guitar, fingered bass
0:34 s 28 60 picked bass, pick bass, plectrum bass
0:35 s 28 60 fretless bass, fretless
0:36 s 28 60 slap bass, slapped bass, funk bass
0:37 s 28 60 popped bass, slap bass pop, pop bass
0:38 h 24 60 synth bass, bass synth, analog bass
0:39 h 24 60 rubber bass, synth bass two, warm synth bass
8:38 h 24 60 acid bass, resonant bass, 303 bass
strings
0:40 h 55 96 violin, solo violin, bowed violin
0:41 h 48 84 viola, solo viola
0:42 h 36 76 cello, solo cello, violoncello
0:43 h 28 60 contrabass, bowed double bass, bowed bass
0:44 h 36 96 tremolo strings, strings tremolo, trembling strings
0:45 s 36 96 pizzicato strings, pizzicato, plucked strings, pizz
0:46 s 28 100 harp, concert harp, orchestral harp
0:47 s 36 60 timpani, kettle drum, kettledrums
0:48 h 36 96 string ensemble, strings, string section, orchestral strings, orchestra strings
0:49 h 36 96 slow strings, soft strings, legato strings
0:50 h 36 96 synth strings, string machine, solina
20:48 h 55 96 violins, violin section, violin ensemble
40:48 h 36 72 celli, cellos, cello section
0:110 h 55 96 fiddle, country fiddle, folk violin
voice
0:52 h 43 84 choir aah, choir, aah choir, choir aahs, vocal choir, singing choir, voices
0:53 h 43 84 voice ooh, choir ooh, oohs, ooh voices, humming choir
0:54 h 43 84 synth voice, synth vox, vocal synth, synth choir
0:91 h 43 84 space choir pad, choir pad, space voice, ethereal choir
0:85 h 43 84 solo vox, voice lead, vocal lead
brass
0:56 h 54 84 trumpet, solo trumpet
0:57 h 40 72 trombone, slide trombone
0:58 h 28 58 tuba, bass tuba
0:59 h 54 82 muted trumpet, harmon mute trumpet, trumpet with mute
0:60 h 41 77 french horn, french horns, horn
0:61 h 36 84 brass section, brass, horn section, brass ensemble
0:62 h 36 84 synth brass, analog brass, brass synth
0:63 h 36 84 soft synth brass, mellow synth brass, warm synth brass
0:55 s 36 84 orchestra hit, orchestral hit, orch hit
reed
0:64 h 56 87 soprano sax, soprano saxophone
0:65 h 49 80 alto sax, alto saxophone, sax, saxophone
0:66 h 44 75 tenor sax, tenor saxophone, jazz sax
0:67 h 36 69 baritone sax, baritone saxophone, bari sax
0:68 h 58 91 oboe
0:69 h 52 81 english horn, cor anglais
0:70 h 34 72 bassoon, fagotto
0:71 h 50 91 clarinet
flute
0:72 h 74 105 piccolo, piccolo flute
0:73 h 60 96 flute, concert flute, transverse flute
0:74 h 60 96 recorder, block flute
0:75 h 60 96 pan flute, pan pipes, panpipes
0:76 h 60 96 bottle, blown bottle, bottle blow
0:77 h 55 84 shakuhachi, bamboo flute, japanese flute
0:78 h 60 96 whistle, tin whistle, whistling
0:79 h 60 84 ocarina
lead
0:80 h 36 96 square lead, square wave, square wave lead, chiptune lead
0:81 h 36 96 saw lead, sawtooth lead, sawtooth, saw wave
20:81 h 36 96 detuned saw, supersaw, super saw, detuned saw lead
8:80 h 36 96 sine wave, sine, pure tone, sine lead
0:82 h 36 96 calliope lead, calliope, steam organ
0:83 h 36 96 chiff lead, chiffer lead
0:84 h 36 96 charang, distorted lead
0:86 h 36 96 fifths lead, saw fifths, fifth saw
0:87 h 24 84 bass and lead, bass lead
pad
0:88 h 36 96 new age pad, fantasia, fantasia pad, sparkling pad
0:89 h 36 96 warm pad, warm analog pad, analog pad, pad, synth pad
0:90 h 36 96 polysynth, poly synth, polysynth pad
0:92 h 36 96 bowed glass pad, bowed glass, glass pad
0:93 h 36 96 metal pad, metallic pad
0:94 h 36 96 halo pad, halo
0:95 h 36 96 sweep pad, sweeping pad, filter sweep pad
effect
0:96 h 36 96 ice rain, rain pad
0:97 h 36 96 soundtrack, soundtrack pad, cinematic pad
0:98 s 36 96 crystal, crystal bell, crystal synth
0:99 s 36 96 atmosphere, atmosphere pad, nylon pad
0:100 s 36 96 brightness, bright synth bell
0:101 h 36 96 goblin, goblins, eerie pad
0:102 s 36 96 echo drops, echoes, echo synth
0:103 h 36 96 star theme, sci-fi pad, space pad
ethnic
0:104 s 43 84 sitar, indian sitar
0:105 s 43 84 banjo, bluegrass banjo
0:106 s 43 84 shamisen
0:107 s 43 84 koto, japanese koto
0:108 s 48 96 kalimba, thumb piano, mbira
0:109 h 48 84 bagpipe, bagpipes
0:111 h 48 84 shanai, shehnai, shenai
percussive
0:112 s 48 96 tinkle bell, tinkling bell, small bell
0:113 s 48 84 agogo, agogo bell
0:114 s 48 84 steel drum, steel drums, steel pan, steelpan
0:115 s 48 84 woodblock, wood block, chinese block
1:115 s 48 84 temple block, temple blocks
0:116 s 36 72 taiko, taiko drum, japanese drum
0:117 s 36 72 melodic tom, melodic toms
0:118 s 36 72 synth drum, simmons tom, electronic tom
"""

_UNPITCHED_TABLE = """
0:119 reverse cymbal, reversed cymbal, reverse crash
0:120 guitar fret noise, fret noise, string squeak
0:121 breath noise, breath, blowing air
0:122 seashore, ocean waves, sea, ocean, waves, surf
0:123 bird tweet, birds, birdsong, bird
0:124 telephone ring, telephone, phone ringing, ringing phone
0:125 helicopter, chopper, rotor
0:126 applause, clapping audience, crowd clapping, audience
0:127 gunshot, gun shot, pistol shot, gun
"""

_DRUM_TABLE = """
35 acoustic kick, kick, kick drum, bass drum, bd
36 kick, kick drum, bass drum, bd
37 side stick, rimshot, rim shot, rim click, cross stick
38 snare, snare drum, snare hit, sd
39 clap, hand clap, handclap, claps
40 electric snare, tight snare, snare, second snare
41 low floor tom, floor tom, low tom, tom
42 closed hi-hat, hi-hat, closed hat, hihat, hat, closed hihat
43 high floor tom, floor tom, tom
44 pedal hi-hat, foot hi-hat, pedal hat
45 low tom, tom, tom drum
46 open hi-hat, open hat, open hihat
47 mid tom, middle tom, tom
48 high mid tom, rack tom, tom
49 crash cymbal, crash, cymbal
50 high tom, tom, small tom
51 ride cymbal, ride
52 china cymbal, chinese cymbal, china
53 ride bell, bell of the ride
54 tambourine
55 splash cymbal, splash
56 cowbell, cow bell
57 second crash cymbal, crash cymbal, crash
58 vibraslap
59 second ride cymbal, ride cymbal, ride
60 high bongo, bongo, bongos
61 low bongo, bongo
62 muted conga, mute conga, conga slap
63 high conga, conga, open conga
64 low conga, conga, tumba
65 high timbale, timbale, timbales
66 low timbale, timbale
67 high agogo, agogo
68 low agogo, agogo
69 cabasa, afuche
70 maracas, maraca, shaker
71 short whistle, referee whistle short, samba whistle
72 long whistle, referee whistle
73 short guiro, guiro
74 long guiro, guiro
75 claves, clave
76 high woodblock, woodblock
77 low woodblock, woodblock
78 muted cuica, cuica
79 open cuica, cuica
80 muted triangle, triangle muted
81 triangle, open triangle
"""

KITS: dict[int, tuple[str, ...]] = {
    0: ("acoustic", "standard", "studio", "rock"),
    8: ("room", "roomy", "live room"),
    16: ("power", "big rock", "arena"),
    24: ("electronic", "synth", "eighties"),
    25: ("808", "tr-808", "analog drum machine"),
    32: ("jazz", "small jazz"),
    40: ("brush", "brushed", "with brushes"),
}
"""Drum kits of bank 128: programs, and the words for them."""

SHARED_KEYS = tuple(range(54, 82))
"""Percussion keys that are equal in all kits: rendered with the standard kit, without a word for the kit."""


def _instruments() -> tuple[Instrument, ...]:
    instruments: list[Instrument] = []
    family = ""
    for line in _TABLE.strip().splitlines():
        if line[0] not in "0123456789":
            family = line
            continue
        address, held, low, high, names = line.split(" ", 4)
        bank, program = address.split(":")
        instruments.append(
            Instrument(int(bank), int(program), tuple(names.split(", ")), int(low), int(high), held == "h", family)
        )
    return tuple(instruments)


def _unpitched() -> dict[tuple[int, int], tuple[str, ...]]:
    programs: dict[tuple[int, int], tuple[str, ...]] = {}
    for line in _UNPITCHED_TABLE.strip().splitlines():
        address, names = line.split(" ", 1)
        bank, program = address.split(":")
        programs[int(bank), int(program)] = tuple(names.split(", "))
    return programs


def _drums() -> dict[int, tuple[str, ...]]:
    rows = (line.split(" ", 1) for line in _DRUM_TABLE.strip().splitlines())
    return {int(key): tuple(names.split(", ")) for key, names in rows}


INSTRUMENTS = _instruments()
UNPITCHED = _unpitched()
"""Names of the soundfont's sounds without a note, by bank and program."""
DRUMS = _drums()
"""Names of the percussion keys of channel 10."""
