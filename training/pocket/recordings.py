"""Table of the recorded samples: only files with a named author and a CC0 grant.

Two loops of the package are excluded despite their grant, because they quote a well-known record.
"""

from timbred.models.pocket import Recording

_TABLE = """
ambi_choir texture 1.57 ambient choir, choir pad, heavenly choir
ambi_dark_woosh texture 3.70 dark whoosh, whoosh, dark woosh
ambi_drone texture 4.41 ambient drone, drone, dark drone
ambi_glass_hum texture 10.0 glass hum, humming glass, glass drone
ambi_glass_rub texture 3.15 rubbed glass, wine glass, singing glass
ambi_haunted_hum texture 9.78 haunted hum, haunted drone, ghostly hum, eerie drone
ambi_lunar_land texture 7.39 lunar ambience, space ambience, sci-fi ambience
ambi_piano texture 2.81 ambient piano chord, piano chord with echo, ambient piano
ambi_soft_buzz texture 0.78 soft buzz, buzz, gentle buzz
ambi_swoosh texture 1.85 swoosh, whoosh, air swoosh
bass_dnb_f texture 0.87 drum and bass bass, dnb bass, reese bass
bass_drop_c texture 2.36 bass drop, sub drop, falling bass
bass_hard_c texture 1.50 hard bass, aggressive bass, hard synth bass
bass_hit_c hit 0.61 bass hit, bass stab
bass_thick_c texture 3.97 thick bass, fat bass, heavy bass
bass_trance_c texture 3.61 trance bass, bass for trance
bass_voxy_c texture 6.23 vocal bass, talking bass, voxy bass
bass_voxy_hit_c hit 0.46 vocal bass hit, talking bass stab
bass_woodsy_c texture 3.25 woody bass, wooden bass
bd_808 hit 0.56 808 kick, 808, 808 bass drum
bd_ada hit 0.10 short kick, clicky kick
bd_boom hit 1.71 boomy kick, boom kick, long kick
bd_fat hit 0.23 fat kick, fat bass drum
bd_gas hit 0.45 distorted kick, gritty kick
bd_haus hit 0.22 house kick, kick for house
bd_klub hit 0.37 club kick, club bass drum
bd_pure hit 0.43 pure kick, clean kick
bd_sone hit 0.41 deep kick, soft kick
bd_tek hit 0.24 techno kick, tech kick
bd_zome hit 0.46 heavy electronic kick, electronic kick
bd_zum hit 0.13 tiny kick, tight kick
drum_bass_hard hit 0.70 hard bass drum, kick drum played hard
drum_bass_soft hit 0.56 soft bass drum, kick drum played softly
drum_cowbell hit 0.35 cowbell, cow bell
drum_cymbal_closed hit 0.21 closed hi-hat, closed hat
drum_cymbal_hard hit 1.64 crash cymbal, cymbal hit hard
drum_cymbal_open hit 1.80 open hi-hat, open hat
drum_cymbal_pedal hit 0.27 pedal hi-hat, foot hi-hat
drum_cymbal_soft hit 0.95 soft cymbal, cymbal hit softly
drum_heavy_kick hit 0.27 heavy kick, hard kick
drum_roll texture 6.24 drum roll, snare roll, roll on the drum
drum_snare_hard hit 0.44 hard snare, snare hit hard
drum_snare_soft hit 0.31 soft snare, snare hit softly
drum_splash_hard hit 2.60 splash cymbal, splash hit hard
drum_splash_soft hit 1.86 soft splash cymbal, splash hit softly
drum_tom_hi_hard hit 0.74 high tom, high tom hit hard
drum_tom_hi_soft hit 0.63 soft high tom, high tom hit softly
drum_tom_lo_hard hit 1.00 low tom, low tom hit hard
drum_tom_lo_soft hit 0.86 soft low tom, low tom hit softly
drum_tom_mid_hard hit 0.73 mid tom, mid tom hit hard
drum_tom_mid_soft hit 0.67 soft mid tom, mid tom hit softly
elec_beep hit 0.11 electronic beep, beep
elec_bell hit 0.28 electronic bell, digital bell
elec_blip hit 0.16 electronic blip, blip
elec_blip2 hit 0.18 electronic blip, high blip
elec_blup hit 0.66 electronic blup, synth drop
elec_bong hit 0.35 electronic bong, bong
elec_chime hit 2.28 electronic chime, digital chime
elec_cymbal hit 0.56 electronic cymbal, synth cymbal
elec_filt_snare hit 1.52 filtered snare, snare through a filter
elec_flip hit 0.07 electronic flip, flip click
elec_fuzz_tom hit 0.37 fuzz tom, distorted tom
elec_hi_snare hit 0.20 high electronic snare, electronic snare
elec_hollow_kick hit 0.16 hollow kick, hollow electronic kick
elec_lo_snare hit 0.66 low electronic snare, deep electronic snare
elec_mid_snare hit 0.73 electronic snare, mid electronic snare
elec_ping hit 0.21 electronic ping, ping, sonar ping
elec_plip hit 0.20 electronic plip, plip
elec_pop hit 0.09 electronic pop, pop sound
elec_snare hit 0.39 electronic snare, drum machine snare
elec_soft_kick hit 0.14 soft electronic kick, gentle electronic kick
elec_tick hit 0.10 electronic tick, tick, click
elec_triangle hit 0.22 electronic triangle, synth triangle
elec_twang hit 0.62 electronic twang, twang
elec_twip hit 0.10 electronic twip, twip
elec_wood hit 0.48 electronic woodblock, synth woodblock
guit_e_fifths texture 5.97 electric guitar fifths, guitar power chord, ringing guitar fifths
guit_e_slide texture 4.33 guitar slide, slide on electric guitar
guit_em9 texture 9.97 guitar chord e minor 9, strummed guitar e minor 9
guit_harmonics texture 3.53 guitar harmonics phrase, electric guitar harmonics
loop_breakbeat loop 1.90 breakbeat loop, break loop, sampled breakbeat
loop_compus loop 6.49 electronic percussion loop, glitchy electronic loop, glitches, glitch loop, glitch
loop_garzul loop 8.00 synth loop, dark synth loop
loop_industrial loop 0.88 industrial loop, industrial drum loop
loop_mika loop 8.00 electronic groove loop, house groove loop
loop_safari loop 8.01 tribal percussion loop, safari drums loop
loop_tabla loop 10.0 tabla loop, indian drum loop
misc_cineboom texture 7.92 cinematic boom, cinematic impact, trailer hit
misc_crow texture 0.48 crow, crow call
misc_burp texture 0.79 burp, belch
perc_bell texture 6.72 hand bell, ringing bell
perc_snap hit 0.31 finger snap, snap, finger snaps
perc_snap2 hit 0.17 finger snap, snap
perc_swash hit 0.32 swash, swish
perc_till texture 2.67 cash register, till
sn_dolf hit 0.38 cracking snare, snare crack
sn_dub hit 0.28 dub snare, snare for dub
sn_zome hit 0.48 heavy electronic snare, snare for techno
tabla_dhec hit 0.33 tabla dhec, tabla slap
tabla_ghe1 hit 0.59 tabla ghe, bass tabla stroke
tabla_ghe2 hit 2.66 tabla ghe, low tabla with bend
tabla_ghe3 hit 2.39 tabla ghe, low tabla
tabla_ghe4 hit 0.80 tabla ghe, bass tabla
tabla_ghe5 hit 3.56 tabla ghe, low ringing tabla
tabla_ghe6 hit 3.60 tabla ghe, low ringing tabla
tabla_ghe7 hit 2.15 tabla ghe, low tabla
tabla_ghe8 hit 0.58 tabla ghe, muted bass tabla
tabla_ke3 hit 0.10 tabla ke, tabla click
tabla_na hit 0.72 tabla na, high tabla stroke
tabla_na_o hit 1.49 tabla na, open tabla stroke
tabla_na_s hit 0.24 tabla na, short tabla stroke
tabla_re hit 0.28 tabla re, tabla tap
tabla_tas1 hit 1.11 tabla tas, sharp tabla stroke
tabla_tas2 hit 1.43 tabla tas, sharp tabla stroke
tabla_tas3 hit 1.24 tabla tas, sharp tabla stroke
tabla_te1 hit 0.18 tabla te, closed tabla stroke
tabla_te2 hit 0.33 tabla te, closed tabla stroke
tabla_te_m hit 0.29 tabla te, muted tabla stroke
tabla_te_ne hit 0.15 tabla te, closed tabla stroke
tabla_tun1 hit 2.34 tabla tun, ringing tabla
tabla_tun2 hit 2.69 tabla tun, ringing tabla
tabla_tun3 hit 2.10 tabla tun, ringing tabla
vinyl_backspin texture 1.06 vinyl backspin, record backspin, dj backspin
vinyl_hiss texture 8.00 vinyl hiss, vinyl noise, record noise
vinyl_rewind texture 2.68 vinyl rewind, record rewind, dj rewind
vinyl_scratch hit 0.27 vinyl scratch, record scratch, dj scratch, turntable scratch
"""


def _recordings() -> dict[str, Recording]:
    recordings: dict[str, Recording] = {}
    for line in _TABLE.strip().splitlines():
        name, form, seconds, names = line.split(" ", 3)
        recordings[name] = Recording(tuple(names.split(", ")), form, float(seconds))
    return recordings


RECORDINGS = _recordings()
