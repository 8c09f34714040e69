//! A recording as mono samples of one rate, from a file or a stream.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use symphonia::core::io::ReadOnlySource;

use super::{compressed, resample::Resampler, wav};
use crate::error::DataError;

/// Rates of recordings that are read, in Hz: from below a telephone's to above a studio's.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
/// Channels of recordings that are read.
const CHANNELS: usize = 64;
/// Samples beyond are no sound: some write whole numbers as floats, but nobody larger ones than 24 bits have.
const LOUDEST: f32 = 1e7;
/// Longest ID3 tag; the larger ones hold a cover.
const TAG: u64 = 64 << 20;

/// How much of a recording is taken before it is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Longest recording, in seconds.
    pub seconds: f64,
}

impl Default for Limits {
    /// Two hours: some 460 MB at 16 kHz.
    fn default() -> Self {
        Self { seconds: 7200.0 }
    }
}

/// Name endings of files that [`read`] knows.
pub const ENDINGS: &[&str] = &["wav", "flac", "mp3", "ogg", "oga", "m4a", "mp4", "aac"];

/// Whether a file's name is that of a recording.
pub fn is_recording(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// All recordings of a file or, with the folders in it, of a folder; sorted by path.
pub fn recordings(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    const DEPTH: usize = 32;
    fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
        let read = |source| DataError::Read { path: folder.to_owned(), source };
        for entry in fs::read_dir(folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            // Not the folder behind a link, which may be one that this one is in.
            if entry.file_type().map_err(read)?.is_dir() && depth < DEPTH {
                walk(&path, depth + 1, found)?;
            } else if path.is_file() && is_recording(&path) {
                found.push(path);
            }
        }
        Ok(())
    }
    let about = fs::metadata(path);
    if !about.map_err(|source| DataError::Read { path: path.to_owned(), source })?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = vec![];
    walk(path, 0, &mut found)?;
    found.sort();
    match found.is_empty() {
        true => {
            Err(DataError::Empty { path: path.to_owned(), detail: "it has no recording in it" })
        }
        false => Ok(found),
    }
}

/// The recording in `path`, mixed to mono at `rate` Hz. Never empty, every sample finite.
///
/// WAV, FLAC, MP3, Ogg Vorbis and AAC (in MP4 or alone), whatever the file is called.
pub fn read(path: &Path, rate: u32, limits: &Limits) -> Result<Vec<f32>, DataError> {
    let error = |source| DataError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(error)?;
    if !meta.is_file() {
        let found = if meta.is_dir() { "a folder" } else { "not a regular file" };
        return Err(DataError::NotRegularFile { path: path.to_owned(), found: found.into() });
    }
    let mut file = File::open(path).map_err(error)?;
    let mut start = [0; 4];
    let known = file.read(&mut start).map_err(error)?;
    file.rewind().map_err(error)?;
    match &start[..known] {
        [] => Err(DataError::Empty { path: path.to_owned(), detail: EMPTY }),
        [b'R', b'I', b'F', b'F'] | [b'I', b'D', b'3', ..] | MATROSKA => {
            from_stream(file, path, rate, limits)
        }
        // MP4 may have its index at its end.
        _ => {
            let mut sink = Sink::new(path, rate, limits);
            compressed::decode(Box::new(file), &mut sink)?;
            sink.finish()
        }
    }
}

const EMPTY: &str = "it has not a byte";
/// How Matroska files begin, and WebM, which is one.
const MATROSKA: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3];

/// As [`read`], from a stream such as standard input; `name` is for messages.
pub fn from_stream(
    stream: impl Read + Send + Sync,
    name: &Path,
    rate: u32,
    limits: &Limits,
) -> Result<Vec<f32>, DataError> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut start = vec![];
    let read = |source| DataError::Read { path: name.to_owned(), source };
    stream.by_ref().take(10).read_to_end(&mut start).map_err(read)?;
    let mut sink = Sink::new(name, rate, limits);
    if let [b'I', b'D', b'3', _, _, _, a, b, c, d] = start[..] {
        // Seven bits of each byte count.
        let length = [a, b, c, d].iter().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        if length > TAG {
            let detail = format!("a tag of {length} bytes before its sound");
            return Err(DataError::TooLarge { path: name.to_owned(), detail });
        }
        io::copy(&mut stream.by_ref().take(length), &mut io::sink()).map_err(read)?;
        start.clear();
    } else if start.is_empty() {
        return Err(DataError::Empty { path: name.to_owned(), detail: EMPTY });
    }
    if start.starts_with(MATROSKA) {
        return Err(sink.unsupported("WebM or Matroska"));
    }
    let is_wav = start.starts_with(b"RIFF");
    let stream = io::Cursor::new(start).chain(stream);
    match is_wav {
        true => wav::decode(stream, &mut sink)?,
        false => compressed::decode(Box::new(ReadOnlySource::new(stream)), &mut sink)?,
    }
    sink.finish()
}

/// Samples without a header, 16 bits each, little-endian, mono, as microphones' programs pipe them.
pub fn from_raw(
    stream: impl Read,
    name: &Path,
    [from, to]: [u32; 2],
    limits: &Limits,
) -> Result<Vec<f32>, DataError> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut sink = Sink::new(name, to, limits);
    sink.begin(from, 1)?;
    let mut block = vec![0; 1 << 14];
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match stream.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(DataError::Read { path: name.to_owned(), source }),
            }
        }
        let samples = block[..filled].chunks_exact(2);
        let samples: Vec<f32> =
            samples.map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect();
        sink.push(&samples)?;
        if filled < block.len() {
            return sink.finish();
        }
    }
}

/// Where decoders put what they find: checked, mixed, resampled, counted.
pub(super) struct Sink<'a> {
    pub name: &'a Path,
    rate: u32,
    limits: &'a Limits,
    /// Rate and channels of the recording; known once a decoder has begun.
    format: Option<(u32, usize)>,
    resampler: Option<Resampler>,
    mono: Vec<f32>,
    samples: Vec<f32>,
}

impl<'a> Sink<'a> {
    fn new(name: &'a Path, rate: u32, limits: &'a Limits) -> Self {
        let (mono, samples) = (vec![], vec![]);
        Self { name, rate, limits, format: None, resampler: None, mono, samples }
    }

    /// Says what the recording is; before the first samples.
    pub fn begin(&mut self, rate: u32, channels: usize) -> Result<(), DataError> {
        if self.format == Some((rate, channels)) {
            return Ok(());
        }
        if self.format.is_some() {
            return Err(self.bad("changes its sample rate or its channels on the way".into()));
        }
        if !RATES.contains(&rate) {
            let (low, high) = (RATES.start(), RATES.end());
            return Err(self.bad(format!("has a sample rate of {rate} Hz, not {low} to {high}")));
        }
        if !(1..=CHANNELS).contains(&channels) {
            return Err(self.bad(format!("has {channels} channels, not 1 to {CHANNELS}")));
        }
        self.format = Some((rate, channels));
        self.resampler = (rate != self.rate).then(|| Resampler::new(rate, self.rate));
        Ok(())
    }

    /// Samples of the channels by turns.
    pub fn push(&mut self, interleaved: &[f32]) -> Result<(), DataError> {
        let (_, channels) = self.format.expect("a decoder begins first");
        if let Some(bad) = interleaved.iter().find(|x| !x.is_finite() || x.abs() > LOUDEST) {
            let what = if bad.is_finite() { "no sound" } else { "not finite" };
            return Err(self.bad(format!("has a sample of {bad}, which is {what}")));
        }
        let mono = interleaved.chunks_exact(channels);
        let mono = mono.map(|frame| frame.iter().sum::<f32>() / channels as f32);
        match &mut self.resampler {
            None => self.samples.extend(mono),
            Some(resampler) => {
                self.mono.clear();
                self.mono.extend(mono);
                resampler.push(&self.mono, &mut self.samples);
            }
        }
        let most = self.limits.seconds * f64::from(self.rate);
        match self.samples.len() as f64 > most {
            true => {
                let detail = format!("longer than {} seconds", self.limits.seconds);
                Err(DataError::TooLarge { path: self.name.to_owned(), detail })
            }
            false => Ok(()),
        }
    }

    /// [`Self::push`] for the whole frames of `block`, which keeps the others.
    pub fn push_frames(&mut self, block: &mut Vec<f32>) -> Result<(), DataError> {
        let (_, channels) = self.format.expect("a decoder begins first");
        let whole = block.len() - block.len() % channels;
        self.push(&block[..whole])?;
        block.drain(..whole);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<f32>, DataError> {
        if let Some(resampler) = self.resampler.take() {
            resampler.finish(&mut self.samples);
        }
        match self.samples.is_empty() {
            true => {
                Err(DataError::Empty { path: self.name.to_owned(), detail: "it has no samples" })
            }
            false => Ok(self.samples),
        }
    }

    pub fn bad(&self, problem: String) -> DataError {
        DataError::BadValue { path: self.name.to_owned(), detail: problem }
    }

    pub fn unsupported(&self, problem: impl std::fmt::Display) -> DataError {
        let detail = format!(
            "is not a recording that is read here: {problem}; WAV is, as `ffmpeg -i IN OUT.wav` writes it"
        );
        DataError::Unsupported { path: self.name.to_owned(), detail }
    }

    pub fn truncated(&self, detail: impl std::fmt::Display) -> DataError {
        DataError::Truncated { path: self.name.to_owned(), detail: detail.to_string() }
    }
}
