//! Recordings against other programs' readings, and those that are refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use firebrick_data::{
    audio::{
        mel::{Log, Mel, MelConfig, MelScale},
        read::{Limits, from_raw, from_stream, read, recordings},
    },
    error::DataError,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audio").join(name)
}

/// Golden files are written by `tests/golden/make_audio.py`.
#[track_caller]
fn check_frames(name: &str, config: &MelConfig, tolerance: f32) {
    config.check().unwrap();
    let samples = read(&golden("sound.wav"), 16_000, &Limits::default()).unwrap();
    let expected = fs::read(golden(name)).unwrap();
    let expected: Vec<f32> =
        expected.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let frames = Mel::new(config).frames(&samples);
    assert_eq!(frames.len(), expected.len(), "{name}");
    assert_eq!(frames.len(), config.frames(samples.len()) * config.width());
    let apart = frames.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= tolerance, "{name}: {apart}");
}

fn torchaudio(log: Log, n_mfcc: usize) -> MelConfig {
    MelConfig { n_fft: 512, mel_scale: MelScale::Htk, log, n_mfcc, ..MelConfig::whisper(40) }
}

#[test]
fn log_mel_is_whispers() {
    check_frames("whisper.f32", &MelConfig::whisper(80), 1e-4);
}

#[test]
fn log_mel_is_torchaudios() {
    check_frames("natural.f32", &torchaudio(Log::Natural, 0), 1e-4);
    // Decibels are ten times as large; in quiet bands the rounding of the transform of either side shows: 2.9e-4.
    check_frames("decibel.f32", &torchaudio(Log::Decibel, 0), 5e-4);
}

#[test]
fn mfcc_is_torchaudios() {
    check_frames("mfcc.f32", &torchaudio(Log::Decibel, 13), 2e-4); // of decibels; measured: 1.3e-4
}

/// Half a second of 440 Hz at half of full scale on one of two channels.
#[track_caller]
fn check_tone(samples: &[f32], tolerance: f32) {
    // Encoders add some silence around.
    assert!((7900..9500).contains(&samples.len()), "{} samples", samples.len());
    let part = &samples[2000..6000];
    let turn = |i: usize| std::f32::consts::TAU * 440.0 * i as f32 / 16_000.0;
    let dot = |f: fn(f32) -> f32| {
        part.iter().enumerate().map(|(i, x)| x * f(turn(i))).sum::<f32>() / 2000.0
    };
    let loudness = dot(f32::sin).hypot(dot(f32::cos));
    assert!((loudness - 0.25).abs() < tolerance, "{loudness}");
}

#[test]
fn every_format_is_read() {
    for (name, tolerance) in [
        ("tone.wav", 1e-3),
        ("tone.flac", 1e-3),
        ("tone.mp3", 0.02),
        ("tone.ogg", 0.02),
        ("tone.m4a", 0.02),
    ] {
        let path = golden(name);
        check_tone(&read(&path, 16_000, &Limits::default()).unwrap(), tolerance);
        if name != "tone.m4a" {
            let file = fs::File::open(&path).unwrap();
            let samples = from_stream(file, Path::new("stdin"), 16_000, &Limits::default());
            check_tone(&samples.unwrap(), tolerance);
        }
    }
    let all = recordings(&golden("")).unwrap();
    assert_eq!(all.len(), 6);
}

#[test]
fn samples_without_a_header() {
    let bytes: Vec<u8> = (0..4000i16).flat_map(|i| (i * 8).to_le_bytes()).collect();
    let samples = from_raw(&bytes[..], Path::new("-"), [16_000; 2], &Limits::default()).unwrap();
    assert_eq!((samples.len(), samples[100]), (4000, 800.0 / 32768.0));
    let empty = from_raw(&[][..], Path::new("-"), [16_000; 2], &Limits::default());
    assert!(matches!(empty, Err(DataError::Empty { .. })));
}

/// A WAV of `samples` 16-bit zeros, with four bytes put in elsewhere.
fn wav(samples: usize, change: Option<(usize, [u8; 4])>) -> Vec<u8> {
    let mut bytes =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data"
            .to_vec();
    bytes.extend((2 * samples as u32).to_le_bytes());
    bytes.resize(bytes.len() + 2 * samples, 0);
    if let Some((at, four)) = change {
        bytes[at..at + 4].copy_from_slice(&four);
    }
    bytes
}

#[track_caller]
fn check_refused(bytes: Vec<u8>, kind: &str, says: &str) {
    let refused = from_stream(&bytes[..], Path::new("x.wav"), 16_000, &Limits { seconds: 2.0 });
    let error = refused.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(message.starts_with("x.wav") && message.contains(says), "{message}");
}

#[test]
fn bad_recordings_are_refused() {
    let fine = from_stream(&wav(8, None)[..], Path::new("x"), 16_000, &Limits::default());
    assert_eq!(fine.unwrap(), [0.0; 8]);
    check_refused(wav(8, Some((24, [0; 4]))), "BadValue", "0 Hz");
    check_refused(wav(8, Some((24, [1, 0, 0, 0]))), "BadValue", "1 Hz");
    check_refused(wav(8, Some((20, [1, 0, 0, 0]))), "BadValue", "0 channels");
    check_refused(wav(8, Some((32, [7, 0, 16, 0]))), "BadValue", "blocks of 7 bytes");
    check_refused(wav(8, Some((32, [2, 0, 33, 0]))), "BadValue", "33 bits");
    check_refused(wav(8, Some((20, [0x34, 0x12, 1, 0]))), "Unsupported", "0x1234");
    check_refused(wav(8, Some((20, [6, 0, 1, 0]))), "Unsupported", "A-law");
    check_refused(b"\x1a\x45\xdf\xa3 and so on".to_vec(), "Unsupported", "WebM");
    // Its index is at its end.
    check_refused(fs::read(golden("tone.m4a")).unwrap(), "Unsupported", "save it to a file first");
    check_refused(fs::read(golden("tone.opus")).unwrap(), "Unsupported", "Opus");
    check_refused(wav(8, Some((40, [0, 0, 1, 0]))), "Truncated", "should have 65536 bytes");
    check_refused(wav(0, None), "Empty", "no samples");
    check_refused(wav(40_000, None), "TooLarge", "longer than 2 seconds");
    check_refused(wav(8, None)[..30].to_vec(), "Truncated", "format chunk");
    check_refused(b"RIFF\0\0\0\0WAVE".to_vec(), "Truncated", "`fmt `");
    // Float: 3, and NaN among the samples.
    let mut nan = wav(8, Some((20, [3, 0, 1, 0])));
    nan[32..36].copy_from_slice(&[4, 0, 32, 0]);
    nan[48..52].copy_from_slice(&f32::NAN.to_le_bytes());
    check_refused(nan, "BadValue", "not finite");
    let noise: Vec<u8> =
        (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let refused = from_stream(&noise[..], Path::new("x.mp3"), 16_000, &Limits::default());
    assert!(refused.is_err());
    let mut flac = fs::read(golden("tone.flac")).unwrap();
    assert!(from_stream(&flac[..3000], Path::new("x.flac"), 16_000, &Limits::default()).is_err());
    let shorter = flac[..12_000].to_vec();
    check_refused(shorter, "Truncated", "in the midst of its sound");
    // A hole, behind which the next frame is found.
    flac[10_500..11_500].fill(0);
    check_refused(flac, "BadValue", "some of its sound is missing");
}

/// A writer that cannot go back leaves the largest length there is, or one that no recording has, as arecord does.
#[test]
fn a_length_that_was_never_filled_in() {
    for length in [[0xff; 4], [0, 0, 0, 0x80]] {
        let bytes = wav(8, Some((40, length)));
        let samples = from_stream(&bytes[..], Path::new("x"), 16_000, &Limits::default());
        assert_eq!(samples.unwrap().len(), 8);
    }
}

#[test]
#[cfg(unix)]
fn a_link_does_not_make_a_folder_endless() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.wav"), wav(8, None)).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
    assert_eq!(recordings(dir.path()).unwrap(), [dir.path().join("a.wav")]);
}
