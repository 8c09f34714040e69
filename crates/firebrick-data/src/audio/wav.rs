//! WAV by `hound`, which reads and writes the samples. The chunks before them are walked here: hound takes 0 Hz, stumbles over a
//! chunk of odd length and over headers that are slightly longer than it knows, and has no words for what is wrong.

use std::io::{self, Cursor, Read};

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use super::read::Sink;
use crate::error::DataError;

/// `wFormatTag`
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;
/// Chunks other than the two that matter: pictures, cue points, lyrics.
const SKIPPED: u64 = 256 << 20;
/// Samples that are handed on at a time.
const BLOCK: usize = 1 << 14;
/// From this length on a data chunk goes on to the end: its writer could not go back to fill it in (ffmpeg, SoX, espeak-ng,
/// arecord).
const STREAMED: u32 = 0x7fff_0000;

/// Reads the recording into `sink`.
pub(super) fn decode(mut stream: impl Read, sink: &mut Sink) -> Result<(), DataError> {
    let mut head = [0; 12];
    fill(&mut stream, &mut head, sink, "in its first 12 bytes")?;
    if &head[8..] != b"WAVE" {
        return Err(sink.unsupported("RIFF, but not WAVE"));
    }
    let mut skipped = 0;
    let mut format = None;
    loop {
        let mut chunk = [0; 8];
        let missing = match format {
            None => "before its format (`fmt `) chunk",
            Some(_) => "before its `data` chunk",
        };
        fill(&mut stream, &mut chunk, sink, missing)?;
        let [.., a, b, c, d] = chunk;
        let length = u32::from_le_bytes([a, b, c, d]);
        match (&chunk[..4], &format) {
            (b"fmt ", _) => format = Some(Format::read(&mut stream, length, sink)?),
            (b"data", Some(format)) => return samples(stream, length, format, sink),
            (b"data", None) => return Err(sink.bad("has its `data` before its format".into())),
            _ => {
                // Chunks begin at even places.
                let length = u64::from(length) + u64::from(length % 2);
                skipped += length;
                if skipped > SKIPPED {
                    let detail = format!("more than {SKIPPED} bytes before its samples");
                    return Err(DataError::TooLarge { path: sink.name.to_owned(), detail });
                }
                let read = io::copy(&mut stream.by_ref().take(length), &mut io::sink());
                let read =
                    read.map_err(|source| DataError::Read { path: sink.name.to_owned(), source })?;
                if read < length {
                    return Err(sink.truncated(missing));
                }
            }
        }
    }
}

/// A WAV file of mono samples in 16 bits; what is louder than full scale is cut.
///
/// ```
/// use firebrick_data::audio::wav::encode;
///
/// assert_eq!(encode(&[0.5, -2.0], 16_000)[44..], [0, 64, 1, 128]);
/// ```
pub fn encode(samples: &[f32], rate: u32) -> Vec<u8> {
    let (channels, bits_per_sample) = (1, 16);
    let spec =
        WavSpec { channels, sample_rate: rate, bits_per_sample, sample_format: SampleFormat::Int };
    let mut bytes = Cursor::new(vec![]);
    let written = WavWriter::new(&mut bytes, spec).and_then(|mut writer| {
        for sample in samples {
            writer.write_sample((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16)?;
        }
        writer.finalize()
    });
    written.expect("memory can be written to");
    bytes.into_inner()
}

fn fill(
    stream: &mut impl Read,
    bytes: &mut [u8],
    sink: &Sink,
    place: &str,
) -> Result<(), DataError> {
    stream.read_exact(bytes).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => sink.truncated(place),
        _ => DataError::Read { path: sink.name.to_owned(), source },
    })
}

/// A format chunk that makes sense.
struct Format {
    rate: u32,
    channels: u16,
    /// Bytes of a sample of all channels.
    block: u16,
    /// As long as hound knows it: 16 bytes, or 40.
    chunk: Vec<u8>,
}

impl Format {
    fn read(stream: &mut impl Read, length: u32, sink: &Sink) -> Result<Self, DataError> {
        if length < 16 {
            return Err(sink.bad(format!("has a format chunk of {length} bytes, not 16 or more")));
        }
        let mut chunk = vec![0; 40.min(length as usize)];
        fill(stream, &mut chunk, sink, "in its format chunk")?;
        let rest = u64::from(length) + u64::from(length % 2) - chunk.len() as u64;
        if rest > 4096 {
            return Err(sink.truncated(format!("its format chunk should have {length} bytes")));
        }
        let mut unread = vec![0; rest as usize];
        fill(stream, &mut unread, sink, "in its format chunk")?;

        let short = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
        let (tag, channels, block, bits) = (short(0), short(2), short(12), short(14));
        let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
        match tag {
            PCM | FLOAT => chunk.truncate(16),
            EXTENSIBLE if chunk.len() == 40 => chunk[16..18].copy_from_slice(&[22, 0]),
            _ => {
                let name = match tag {
                    2 | 0x11 => " (ADPCM)",
                    6 => " (A-law)",
                    7 => " (mu-law)",
                    0x55 => " (MP3)",
                    _ => "",
                };
                let problem =
                    format!("format {tag:#06x}{name}, where PCM (1) and float (3) are known");
                return Err(sink.unsupported(problem));
            }
        }
        if channels == 0 {
            return Err(sink.bad("has 0 channels".into()));
        }
        if !matches!(bits, 8 | 16 | 24 | 32) {
            return Err(sink.bad(format!("has samples of {bits} bits, not 8, 16, 24 or 32")));
        }
        // 24 bits come in 3 bytes and in 4.
        let sizes =
            [bits / 8, bits.next_power_of_two() / 8].map(|n| u32::from(n * channels.min(4096)));
        if !sizes.contains(&u32::from(block)) {
            let detail =
                format!("has blocks of {block} bytes for {channels} channels of {bits} bits");
            return Err(sink.bad(detail));
        }
        // It says the same again; hound refuses a file where it does not.
        let per_second = u32::from(block).wrapping_mul(rate);
        chunk[8..12].copy_from_slice(&per_second.to_le_bytes());
        Ok(Self { rate, channels, block, chunk })
    }

    /// The start of a file with this format and `length` bytes of samples.
    fn header(&self, length: u32) -> Vec<u8> {
        let chunk = self.chunk.len() as u32;
        let mut header = b"RIFF".to_vec();
        header.extend(length.saturating_add(20 + chunk).to_le_bytes());
        header.extend(b"WAVEfmt ");
        header.extend(chunk.to_le_bytes());
        header.extend(&self.chunk);
        header.extend(b"data");
        header.extend(length.to_le_bytes());
        header
    }
}

fn samples(
    stream: impl Read,
    length: u32,
    format: &Format,
    sink: &mut Sink,
) -> Result<(), DataError> {
    sink.begin(format.rate, format.channels.into())?;
    let whole = length - length % u32::from(format.block);
    let reader = WavReader::new(Cursor::new(format.header(whole)).chain(stream));
    let mut reader = reader.map_err(|error| sink.unsupported(error))?;
    let spec = reader.spec();
    match spec.sample_format {
        SampleFormat::Float => hand_on(reader.samples::<f32>(), 1.0, length, sink),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample - 1)) as f32;
            let samples = reader.samples::<i32>().map(|x| x.map(|x| x as f32));
            hand_on(samples, scale, length, sink)
        }
    }
}

fn hand_on(
    samples: impl Iterator<Item = hound::Result<f32>>,
    scale: f32,
    length: u32,
    sink: &mut Sink,
) -> Result<(), DataError> {
    let mut block = Vec::with_capacity(BLOCK);
    for sample in samples {
        match sample {
            Ok(sample) => block.push(sample * scale),
            // hound's own, at the end of the stream.
            Err(hound::Error::IoError(error)) if error.kind() == io::ErrorKind::Other => {
                if length >= STREAMED {
                    break;
                }
                let problem = format!("its samples should have {length} bytes");
                return Err(sink.truncated(problem));
            }
            Err(hound::Error::IoError(source)) => {
                return Err(DataError::Read { path: sink.name.to_owned(), source });
            }
            Err(error) => return Err(sink.unsupported(error)),
        }
        if block.len() == BLOCK {
            // Blocks of whole frames only: the rest waits.
            sink.push_frames(&mut block)?;
        }
    }
    sink.push_frames(&mut block)
}
