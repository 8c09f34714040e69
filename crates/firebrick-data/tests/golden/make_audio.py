#!/usr/bin/env python3
"""Writes audio/ beside this file: a recording and what transformers 5.24 and torchaudio make of it, and short tones as
ffmpeg 5.1 encodes them.

    pip install numpy torch torchaudio transformers==5.24.0
    python make_audio.py

`*.f32` are little-endian floats, frame by frame.
"""

import struct
import subprocess
from pathlib import Path

import numpy as np
import torch
import torchaudio
from transformers import WhisperFeatureExtractor

HERE = Path(__file__).parent / "audio"
RATE = 16_000

# A chirp, a hum and noise; then silence, where logarithms meet their floors.
random = np.random.default_rng(7)
t = np.arange(6000) / RATE
sound = 0.5 * np.sin(2 * np.pi * (200 * t + 6000 * t**2)) + 0.1 * np.sin(2 * np.pi * 50 * t)
sound += 0.01 * random.standard_normal(len(t))
sound = np.concatenate([sound, np.zeros(1000)]).astype("<f4")


def wav(name, format, block, bits, data, rate=RATE, channels=1, before=b""):
    fmt = struct.pack("<HHIIHH", format, channels, rate, rate * block, block, bits)
    chunks = before + b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    (HERE / name).write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


wav("sound.wav", 3, 4, 32, sound.tobytes())


def save(name, frames):
    (HERE / name).write_bytes(np.ascontiguousarray(frames, dtype="<f4").tobytes())
    print(name, frames.shape)


whisper = WhisperFeatureExtractor()
save("whisper.f32", whisper._np_extract_fbank_features(sound[None], "cpu")[0].T)

x = torch.from_numpy(sound)
sizes = dict(n_fft=512, win_length=400, hop_length=160, n_mels=40)
mel = torchaudio.transforms.MelSpectrogram(RATE, **sizes)(x)
save("natural.f32", torch.log(mel + 1e-6).T.numpy())
save("decibel.f32", torchaudio.transforms.AmplitudeToDB(top_db=80)(mel).T.numpy())
save("mfcc.f32", torchaudio.transforms.MFCC(RATE, n_mfcc=13, melkwargs=sizes)(x).T.numpy())

# Half a second of 440 Hz on the left, silence on the right.
tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(11025) / 22050) * 32767).astype("<i2")
stereo = np.stack([tone, np.zeros_like(tone)], 1)
# An odd chunk, which is followed by a zero.
odd = b"LIST" + struct.pack("<I", 7) + b"INFOabc\0"
wav("tone.wav", 1, 4, 16, stereo.tobytes(), rate=22050, channels=2, before=odd)
for name, options in {
    "tone.flac": ["-c:a", "flac"],
    "tone.mp3": ["-c:a", "libmp3lame", "-b:a", "48k", "-metadata", "title=tone", "-id3v2_version", "3"],
    "tone.ogg": ["-c:a", "libvorbis", "-q:a", "1"],
    "tone.m4a": ["-c:a", "aac", "-b:a", "48k"],
    # Only its name is read here.
    "tone.opus": ["-c:a", "libopus", "-b:a", "8k"],
}.items():
    command = ["ffmpeg", "-y", "-loglevel", "error", "-i", HERE / "tone.wav", "-fflags", "+bitexact", *options]
    subprocess.run([*command, HERE / name], check=True)
